"""TensorBoard's event files, as TensorBoard itself reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK, curve
from videogen_testing.control_plane import free_port
from videogen_testing.patience import HANGS
from videogen_testing.stopping import StopAfter
from videogen_trainer import tasks
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.tracking.event_files import EventFiles

FOLDER = f"{WORK}/tensorboard"


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_every_step_is_there_with_all_that_it_was_worth(storage: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> None:
    slower = {"videoFusion": {"baseLearningRateScale": "0.5"}}
    assert tasks.attempt(make_job(slower), storage, {}, silent, lambda: False).reason is Reason.COMPLETED
    events, lines = read(storage / FOLDER), curve(storage)
    for name, key in {"loss/total": "loss", "loss/base": "base", "gradient/norm": "gradient", "rate/others": "rate"}.items():
        assert [event.step for event in events.Scalars(name)] == [1, 2, 3, 4]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([line[key] for line in lines], rel=1e-6)
    rates = {name: [event.value for event in events.Scalars(f"rate/{name}")] for name in ("slow", "others")}
    assert rates["slow"] == pytest.approx([rate / 2 for rate in rates["others"]])
    assert all(event.value > 0 for event in events.Scalars("step/seconds"))
    assert all(0 < event.value <= 1 for event in events.Scalars("goodput/productive"))


@pytest.mark.parametrize("family", ["Text2VideoZero", "AlignYourLatents"])
def test_where_all_learns_at_one_rate_no_other_is_shown(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, family: str
) -> None:
    job = make_job({"videoFusion": None, "steps": 2}, model={"family": family, "version": "1.0.0"})
    assert tasks.attempt(job, storage, {}, silent, lambda: False).reason is Reason.COMPLETED
    assert {name for name in read(storage / FOLDER).Tags()["scalars"] if name.startswith("rate/")} == {"rate/others"}


def test_a_resumed_training_shows_no_step_twice_although_the_attempt_before_went_further(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter
) -> None:
    tasks.attempt(make_job(), storage, {}, silent, lambda: False)
    shutil.rmtree(storage / WORK / "checkpoints/step-000000004")  # as if it was killed before it could save
    again = tasks.attempt(make_job(attempt=2), storage, {}, silent, lambda: False)
    assert again.resumed_from_step == 2
    events = read(storage / FOLDER)
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars("loss/total")] == pytest.approx([line["loss"] for line in curve(storage)], rel=1e-6)
    assert sorted(path.suffix for path in (storage / FOLDER).iterdir()) == [".attempt-1", ".attempt-2"]


def test_runs_and_phases_have_names_that_say_what_they_are(storage: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> None:
    tasks.attempt(make_job({"steps": 1}), storage, {}, silent, lambda: False)
    tasks.attempt(make_job({"steps": 1}, workPath="runs/other-76543210/tuning"), storage, {}, silent, lambda: False)
    found = EventMultiplexer().AddRunsFromDirectory(str(storage / "runs"))
    found.Reload()
    assert sorted(found.Runs()) == ["demo-01234567/train/tensorboard", "other-76543210/tuning/tensorboard"]


def test_an_interrupted_training_has_written_all_its_steps(storage: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> None:
    assert tasks.attempt(make_job(), storage, {}, silent, StopAfter(3)).reason is Reason.PREEMPTED
    assert [event.step for event in read(storage / FOLDER).Scalars("loss/total")] == [1, 2, 3]


def test_contact_sheets_are_shown_as_they_are(storage: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> None:
    wanted = {"everySteps": 2, "prompts": ["a square"], "samplingSteps": 1}
    tasks.attempt(make_job({"samples": wanted}), storage, {}, silent, lambda: False)
    events = read(storage / FOLDER)
    assert [event.step for event in events.Images("samples")] == [2, 4]
    sheet = np.asarray(Image.open(storage / WORK / "samples/step-000000004/contact-sheet.png").convert("RGB"))
    shown = storage / "shown.png"
    shown.write_bytes(events.Images("samples")[1].encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(shown)), sheet)


def test_a_folder_that_cannot_be_written_is_said_once_and_training_goes_on(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, caplog: pytest.LogCaptureFixture
) -> None:
    (storage / WORK).mkdir(parents=True)
    (storage / FOLDER).touch()
    report = tasks.attempt(make_job(), storage, {}, silent, lambda: False)
    assert report.reason is Reason.COMPLETED
    assert "TensorBoard's event files end early: FileExistsError" in report.message
    assert len([record for record in caplog.records if "no event files" in record.message]) == 1


def test_a_storage_that_fails_later_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: died.set())  # TensorBoard's thread also prints what it died of
    files = EventFiles(tmp_path / "tensorboard", 1, 0)
    files.scalars(1, {"loss": 1.0})
    files.flush()
    shutil.rmtree(tmp_path / "tensorboard")
    for step in range(2, 6):
        files.scalars(step, {"loss": 1.0})
        files.flush()
    files.close("FINISHED")
    assert died.wait(HANGS)
    assert "FileNotFoundError" in files.summary()
    assert len([record for record in caplog.records if "no event files" in record.message]) == 1


def test_results_of_an_evaluation_are_there_by_metric_and_network(tmp_path: Path) -> None:
    from videogen_api.evaluation import Metric, MetricResult, Normalization
    from videogen_trainer.tracking import _named

    result = MetricResult(
        metric=Metric.CLIP_SCORE, value="0.81", low="0.80", high="0.82", samples=64, extractor="i3d", normalization=Normalization.RAW
    )
    assert _named(result) == {"CLIPScore/i3d/Raw": 0.81, "CLIPScore/i3d/Raw-low": 0.80, "CLIPScore/i3d/Raw-high": 0.82}


def example() -> dict[str, Any]:
    """The Deployment of examples/tracking."""
    path = Path(__file__).parents[2] / "examples/tracking/tensorboard.yaml"
    deployment: dict[str, Any] = next(iter(yaml.safe_load_all(path.read_text())))
    return deployment


def test_the_example_shows_a_claims_runs_with_the_command_that_it_has(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "runs/demo-01234567/train/tensorboard", 1, 0)
    files.scalars(7, {"loss/total": 0.5})
    files.close("FINISHED")
    (container,) = example()["spec"]["template"]["spec"]["containers"]
    port = str(free_port())
    told = [argument.replace("/storage/", f"{tmp_path}/").replace("6006", port) for argument in container["command"]]
    server = subprocess.Popen([sys.executable, *told[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=demo-01234567/train/tensorboard&tag=loss/total"
        assert [line[1:] for line in answered(address)] == [[7, 0.5]]
    finally:
        server.kill()
        server.wait()


def answered(address: str) -> Any:
    end = time.monotonic() + HANGS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=HANGS) as response:
                return json.load(response)
        except OSError:
            assert time.monotonic() < end, "TensorBoard does not answer"
            time.sleep(0.2)


def test_the_example_satisfies_pod_security_restricted_and_writes_nothing() -> None:
    pod = example()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] | {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}} == pod["securityContext"]
    hardened = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    assert container["securityContext"] == hardened
    assert [mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] == "storage"] == [True]
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} == {"persistentVolumeClaim", "emptyDir"}


def test_the_example_has_the_image_of_this_version() -> None:
    from importlib.metadata import version

    (container,) = example()["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(f"/trainer:{version('videogen-trainer')}")
