"""The real Triton, started as its container starts it, asked over HTTP.

Its binaries come from requirements/serving.lock into build/, once; the Python backend's stub runs the interpreter of the
tests.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from prometheus_client.parser import text_string_to_metric_families

from videogen_api.bundle import canonical_json, manifest_digest
from videogen_models.sealed import sha256_of
from videogen_models.video import decode_mp4
from videogen_serving.client import generate, request_body, template_body
from videogen_testing import kernels
from videogen_testing.control_plane import eventually
from videogen_testing.patience import HANGS

ROOT = Path(__file__).resolve().parents[2]
WHEEL = ROOT / "build" / "nvidia-pytriton"


class Bundle(Protocol):
    folder: Path

    def environment(self) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    http: str
    metrics: str
    log: Path
    process: subprocess.Popen[bytes]

    def generate(self, prompt: str, seed: int | None = None, steps: int | None = None) -> tuple[bytes, dict[str, Any]]:
        return generate(self.http, request_body(prompt, seed, steps), {}, HANGS)

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.http + path, timeout=HANGS) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def counted(self, name: str, **labels: str) -> float:
        with urllib.request.urlopen(self.metrics, timeout=HANGS) as response:
            families = text_string_to_metric_families(response.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="session")
def triton() -> Path:
    """Triton's folder, as serving-image/Dockerfile lays it out."""
    folder = WHEEL / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    if not (backend / "triton_python_backend_stub").is_file():
        uv = Path(sys.executable).parent / "uv"
        lock = ROOT / "requirements" / "serving.lock"
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", WHEEL, "--requirement", lock], check=True
        )
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy2(folder / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    return folder


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(triton: Path, environment: dict[str, str], folder: Path, seconds: float = HANGS) -> Server:
    """A server whose generations may take so many seconds."""
    http, metrics = free_ports(2)
    log = folder / "log"
    environment = {
        **kernels.environment(),
        "HOME": str(folder),
        **environment,
        "SAMPLING_STEPS": "3",
        "MAXIMUM_STEPS": "1000",
        "TIMEOUT_SECONDS": f"{seconds:.0f}",
        "HTTP_PORT": str(http),
        "METRICS_PORT": str(metrics),
        "TRITON_PATH": str(triton),
        "MODEL_REPOSITORY": str(ROOT / "serving-image" / "model_repository"),
    }
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "videogen_serving"], env=environment, stdout=output, stderr=output)
    return Server(
        http=f"http://127.0.0.1:{http}",
        metrics=f"http://127.0.0.1:{metrics}/metrics",
        log=log,
        process=process,
    )


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        wait_until_ready(server)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def server(triton: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(start(triton, bundle.environment(folder := tmp_path_factory.mktemp("triton")), folder)) as started:
        yield started


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + HANGS
    while server.get("/v2/models/video/ready") != 200:
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.2)


def test_the_same_seed_gives_the_same_bytes(server: Server) -> None:
    video, metadata = server.generate("a red square", seed=7)
    again, _ = server.generate("a red square", seed=7)

    assert decode_mp4(video).shape == (4, 16, 24, 3)
    assert (metadata["seed"], metadata["steps"], metadata["release"]) == (7, 3, "pib-videogen-videofusion-v1.0.0-tiny")
    assert again == video
    assert server.generate("a red square", seed=8)[0] != video


def test_a_seed_that_the_server_drew_gives_the_video_again(server: Server) -> None:
    video, metadata = server.generate("a blue circle")
    assert server.generate("a blue circle", seed=metadata["seed"])[0] == video


REFUSED = {
    "an empty prompt": (("", None, None), "HTTP 400: PROMPT is empty; write 1 to 500 characters that describe the video"),
    "a negative seed": (("x", -1, None), "HTTP 400: SEED is -1; accepted is a whole number from 0 to 2147483647"),
    "too many steps": (("x", 1, 1001), "HTTP 400: STEPS is 1001; accepted is a whole number from 1 to 1000"),
}


@pytest.mark.parametrize("request_, message", REFUSED.values(), ids=REFUSED.keys())
def test_refused_in_the_servers_words(server: Server, request_: tuple[str, int | None, int | None], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        server.generate(*request_)


def test_a_generation_that_takes_longer_than_the_release_allows_is_refused_in_the_servers_words(
    triton: Path, bundle: Bundle, tmp_path: Path
) -> None:
    late = r"HTTP 400: the generation took [0-9.]+ s for [0-9]+ of 1000 denoising steps, the release allows 1 s"
    with running(start(triton, bundle.environment(tmp_path), tmp_path, seconds=1)) as hasty, pytest.raises(RuntimeError, match=late):
        hasty.generate("x", 1, 1000)  # a step takes more than a millisecond on every machine


def test_every_answer_is_counted_under_its_outcome(server: Server) -> None:
    release = "pib-videogen-videofusion-v1.0.0-tiny"
    before = {outcome: server.counted("videogen_requests_total", release=release, outcome=outcome) for outcome in ("ok", "invalid")}
    server.generate("x", seed=1)
    with pytest.raises(RuntimeError, match="HTTP 400"):
        server.generate("")
    for outcome, count in before.items():
        labels = {"release": release, "outcome": outcome}
        assert server.counted("videogen_requests_total", **labels) == count + 1
    labels = {"release": release, "outcome": "ok"}
    assert server.counted("videogen_request_duration_seconds_count", **labels) == before["ok"] + 1
    assert server.counted("videogen_request_duration_seconds_bucket", le="+Inf", **labels) == before["ok"] + 1
    assert 0 <= server.counted("videogen_request_duration_seconds_bucket", le="0.05", **labels) <= before["ok"] + 1
    assert server.counted("videogen_request_duration_seconds_sum", release=release, outcome="ok") > 0


def test_tritons_own_metrics_know_the_time_in_the_queue_that_ours_do_not(server: Server) -> None:
    """What the alert VideogenReleaseOverloaded is made of: of three requests at once, the third waits for the other two."""
    ours = "videogen_request_duration_seconds_sum"
    duration, count = "nv_inference_request_duration_us_total", "nv_inference_request_success_total"  # the parser adds the _total
    seconds_of_ten = server.generate("x", seed=1, steps=10)[1]["seconds"]
    steps = max(10, round(1 / seconds_of_ten * 10))  # about a second of work, however busy the machine
    before = {name: server.counted(name) for name in (ours, duration, count)}
    with ThreadPoolExecutor() as executor:
        asked = [executor.submit(server.generate, "x", seed=1, steps=steps) for _ in range(3)]
        shortest = min(answer.result(timeout=HANGS)[1]["seconds"] for answer in asked)
    eventually(lambda: server.counted(count, model="video") == before[count] + 3)  # Triton counts after it has answered
    waited = (server.counted(duration, model="video") - before[duration]) / 1e6 - (server.counted(ours) - before[ours])
    assert waited > 2 * shortest


CLOSED = ["/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status", "/v2/logging", "/v2/trace/setting"]


@pytest.mark.parametrize("path", CLOSED)
def test_what_strangers_must_not_reach_is_closed(server: Server, path: str) -> None:
    assert server.get(path) == 403


def test_the_program_for_people_writes_a_video_and_prints_its_metadata(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    command = [sys.executable, "-m", "videogen_serving.client", "--url", server.http, "--prompt", "गंगा", "--seed", "4", "--out", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANGS)
    assert decode_mp4(file.read_bytes()).shape == (4, 16, 24, 3)
    assert json.loads(done.stdout)["prompt"] == "गंगा"
    refused = subprocess.run([*command, "--steps", "0"], capture_output=True, text=True, check=False, timeout=HANGS)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "HTTP 400: STEPS is 0; accepted is a whole number from 1 to 1000" in refused.stderr


def test_a_stored_video_is_answered_at_once_and_needs_no_prompt(server: Server, bundle: Bundle, tmp_path: Path) -> None:
    video, metadata = generate(server.http, template_body("flood", 2), {}, HANGS)
    assert video == (bundle.folder / "templates/flood-2.mp4").read_bytes()
    assert (metadata["template"]["caption"], metadata["seed"]) == ("Flood: move to higher ground", 1)
    with pytest.raises(RuntimeError, match="HTTP 400: TEMPLATE is 'war'; this release has cyclone, flood"):
        generate(server.http, template_body("war"), {}, HANGS)
    command = [
        sys.executable,
        "-m",
        "videogen_serving.client",
        "--url",
        server.http,
        "--template",
        "cyclone",
        "--out",
        str(tmp_path / "x.mp4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANGS)
    assert json.loads(done.stdout)["template"]["category"] == "cyclone"


def test_asked_to_end_it_answers_what_it_has_begun(server: Server) -> None:
    """It ends the server that the tests above share."""
    seconds_of_ten = server.generate("x", seed=1, steps=10)[1]["seconds"]
    steps = max(10, round(4 / seconds_of_ten * 10))  # about four seconds of work, however busy the machine
    with ThreadPoolExecutor() as executor:
        answer = executor.submit(server.generate, "x", seed=1, steps=steps)
        time.sleep(2)  # half of it: it has begun, and is not done
        assert not answer.done()
        server.process.send_signal(signal.SIGTERM)
        assert answer.result(timeout=HANGS)[1]["steps"] == steps
    assert server.process.wait(timeout=HANGS) == 0
    assert server.get("/v2/models/video/ready") == 0


def test_an_intact_bundle_that_this_server_cannot_load_ends_it_with_one_sentence(triton: Path, own_bundle: Bundle, tmp_path: Path) -> None:
    """As a bundle of a later version would."""
    message = tmp_path / "termination-log"
    message.touch()
    config, manifest = own_bundle.folder / "model.json", own_bundle.folder / "manifest.json"
    config.write_bytes(canonical_json({"frames": 4}))
    signed = json.loads(manifest.read_bytes())
    for file in signed["files"]:
        if file["path"] == config.name:
            file |= {"sha256": sha256_of(config), "size": config.stat().st_size}
    manifest.write_bytes(canonical_json(signed))
    changed = {"BUNDLE_DIGEST": manifest_digest(manifest.read_bytes()), "TERMINATION_MESSAGE_PATH": str(message)}

    ended = start(triton, own_bundle.environment(tmp_path) | changed, tmp_path)

    assert ended.process.wait(HANGS) == 1
    assert message.read_text().startswith("the model could not be loaded: ")
    assert "model.json" in message.read_text()
