"""Somebody answers in the operator's place, as a forged DNS answer or a man in the middle would: no token reaches them, and training goes on."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from videogen_api.job import ENV_SERVER_CA_CERT, ENV_SERVER_TOKEN
from videogen_operator.inbound.authority import Files, ensured
from videogen_operator.kinds.training_run import objects
from videogen_operator.kinds.training_run.observed import Observed, observe
from videogen_operator.plan import Key
from videogen_operator.settings import Settings
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN
from videogen_trainer.progress import ProgressReporter, endpoint_of

NOW = datetime.now(UTC)
INBOX = "localhost"


@contextmanager
def answering(folder: Path, files: Files | None) -> Iterator[tuple[int, list[str]]]:
    """A server on this machine: its port, and the tokens that it gets. Without certificate it speaks plain HTTP."""
    tokens: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            tokens.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that breaks off is what this is about."""

    server = Server(("127.0.0.1", 0), Handler)
    if files:
        folder.mkdir()
        for name in ("tls.crt", "tls.key"):
            (folder / name).write_bytes(files[name])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port, tokens
        server.shutdown()
        thread.join()


def of_a_pod(folder: Path, port: int, files: Files) -> dict[str, str]:
    """The environment of a trainer, its files put into this folder, from an operator with this authority."""
    (folder / "ca.crt").write_bytes(files["ca.crt"])
    settings = Settings(progress_url=f"https://{INBOX}:{port}", inbox_ca=str(folder / "ca.crt")).for_plans()
    observed = observe(Simulation(phases=[TRAIN]).world, Key("TrainingRun", "models", "run"))
    assert isinstance(observed, Observed)
    phase = observed.spec.phases[0]
    job = objects.job_of(observed, phase, observed.phase_status("train"), 1)
    environment = {one["name"]: one["value"] for one in objects.environment(phase, job, settings)}
    data = objects.config_map(observed, job, settings)["data"]
    (folder / "mounted.crt").write_text(data[Path(environment[ENV_SERVER_CA_CERT]).name])
    (folder / "token").write_text("a pod's own token")
    return environment | {ENV_SERVER_CA_CERT: str(folder / "mounted.crt"), ENV_SERVER_TOKEN: str(folder / "token")}


def report(environment: dict[str, str]) -> None:
    reporter = ProgressReporter(endpoint_of(environment), 10, lambda: 0.0, lambda: NOW)
    reporter.report(1, 2, {"loss": "0.5"}, final=True)  # it never raises: the work goes on


IMPOSTORS = {
    "of another authority": lambda: ensured({}, [INBOX], NOW),
    "in plain HTTP": lambda: None,
}


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS.keys())
def test_an_impostor_gets_no_token(impostor: object, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with answering(tmp_path / "server", impostor()) as (port, tokens):  # type: ignore[operator]
        report(of_a_pod(tmp_path, port, ensured({}, [INBOX], NOW)))
    assert tokens == []
    assert "progress cannot be posted" in caplog.text
    assert "the work goes on" in caplog.text


def test_a_certificate_for_another_name_is_no_better(tmp_path: Path) -> None:
    files = ensured({}, ["videogen-operator"], NOW)
    with answering(tmp_path / "server", files) as (port, tokens):
        report(of_a_pod(tmp_path, port, files))
    assert tokens == []


def test_the_inbox_gets_it_also_after_its_certificate_was_renewed(tmp_path: Path) -> None:
    files = ensured({}, [INBOX], NOW)
    renewed = ensured(files, [INBOX, "inbox.example.org"], NOW)
    assert renewed["tls.crt"] != files["tls.crt"]
    with answering(tmp_path / "server", renewed) as (port, tokens):
        report(of_a_pod(tmp_path, port, files))
    assert tokens == ["Bearer a pod's own token"]
