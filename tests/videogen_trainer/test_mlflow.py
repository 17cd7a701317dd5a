"""Tracking by MLflow: its own client and store, over HTTP to servers that answer, are slow, refuse, or are not there."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import Job, Report
from videogen_api.tracking import Mlflow
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK, curve
from videogen_testing.control_plane import free_port
from videogen_testing.forks import Fork
from videogen_testing.mlflow_server import TRUSTED, MlflowServer, mlflow_server
from videogen_testing.patience import HANGS
from videogen_trainer import tasks
from videogen_trainer.distributed import World
from videogen_trainer.evaluate.task import tracked
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.tracking import mlflow_address, mlflow_run
from videogen_trainer.tracking.mlflow_run import MlflowRun


@pytest.fixture(autouse=True)
def _servers_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_address, "LOOPBACK_IS_REFUSED", False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def told(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., MlflowRun]]:
    """`told(uri)`: a run of MLflow that sends every 50 ms."""
    monkeypatch.setattr(mlflow_run, "INTERVAL_SECONDS", 0.05)
    begun: list[MlflowRun] = []

    def begin(uri: str, **fields: Any) -> MlflowRun:
        begun.append(MlflowRun(Mlflow(uri=uri), make_job(**fields), tmp_path))
        return begun[-1]

    yield begin
    for run in begun:
        run.close("FINISHED")


def tracking(uri: str, **more: str) -> dict[str, Any]:
    return {"tracking": {"mlflow": {"uri": uri} | more}}


def until(condition: Callable[[], bool], seconds: float = HANGS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_phase_is_a_run_with_its_recipe_its_curves_its_pictures_and_the_manifest_of_its_bundle(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, server: MlflowServer
) -> None:
    wanted = {"samples": {"everySteps": 4, "prompts": ["a square"], "samplingSteps": 1}}
    job = make_job(wanted, **tracking(server.uri, experiment="squares"))
    report = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert (report.reason, report.message) == (Reason.COMPLETED, "4 steps on 12 clips")
    (run,) = server.runs("squares")
    assert (run.info.run_name, run.info.status) == ("demo/train", "FINISHED")
    assert run.data.params["optimizer.learningRate"] == "1e-3"
    assert run.data.params["data.0"] == "squares v1 Train"
    assert run.data.tags["videogen.model"] == "pib-videogen-videofusion-v1.0.0-base"
    assert server.history(run, "loss/total") == [(line["step"], pytest.approx(line["loss"])) for line in curve(storage)]
    files = {path.name: path.read_bytes() for path in server.artifacts.rglob("*") if path.is_file()}
    assert report.artifact
    assert files["manifest.json"] == (storage / report.artifact.path / "manifest.json").read_bytes()
    assert files["contact-sheet.png"] == (storage / WORK / "samples/step-000000004/contact-sheet.png").read_bytes()


def test_a_resumed_attempt_continues_its_run_and_sends_no_step_twice(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, server: MlflowServer
) -> None:
    tasks.attempt(make_job(**tracking(server.uri)), storage, {}, silent, lambda: False)
    shutil.rmtree(storage / WORK / "checkpoints/step-000000004")
    again = tasks.attempt(make_job({}, attempt=2, **tracking(server.uri)), storage, {}, silent, lambda: False)
    assert again.resumed_from_step == 2
    (run,) = server.runs()
    assert run.data.tags["videogen.attempt"] == "2"
    assert [step for step, _ in server.history(run, "loss/total")] == [1, 2, 3, 4]


def test_steps_that_were_done_again_at_another_learning_rate_are_sent_again(server: MlflowServer, told: Callable[..., MlflowRun]) -> None:
    first = told(server.uri)
    for step in (1, 2, 3):
        first.scalars(step, {"loss/total": 1.0})
    first.close("FAILED")
    second = told(server.uri, attempt=2, learningRateScale="0.5")
    for step in (2, 3, 4):
        second.scalars(step, {"loss/total": 0.5})
    second.close("FINISHED")
    (run,) = server.runs()
    assert sorted(server.history(run, "loss/total")) == [(1, 1.0), (2, 0.5), (2, 1.0), (3, 0.5), (3, 1.0), (4, 0.5)]
    assert (first.summary(), second.summary()) == ("", "")


def test_each_phase_and_each_run_of_one_name_has_a_run_of_its_own(server: MlflowServer, told: Callable[..., MlflowRun]) -> None:
    for fields in ({}, {"phase": "tuning"}, {"runUid": "76543210-89ab"}):
        run = told(server.uri, **fields)
        run.scalars(1, {"loss/total": 1.0})
        run.close("FINISHED")
    assert len(server.runs()) == 3


def test_the_end_of_an_attempt_is_that_of_the_run(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, server: MlflowServer
) -> None:
    assert tasks.attempt(make_job(**tracking(server.uri)), storage, {}, silent, lambda: True).reason is Reason.PREEMPTED
    assert [run.info.status for run in server.runs()] == ["KILLED"]


def test_a_server_that_is_not_there_is_said_once_and_nothing_else_happens(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    report = tasks.attempt(make_job(**tracking(f"https://127.0.0.1:{port}")), storage, {}, silent, lambda: False)
    assert report.reason is Reason.COMPLETED
    assert report.message.startswith(f"4 steps on 12 clips; MLflow at https://127.0.0.1:{port} did not get 4 steps and 1 files: Conn")
    assert len([record for record in caplog.records if "takes nothing" in record.message]) == 1


def test_a_slow_server_holds_no_step_up_and_the_end_only_for_a_while(
    server: MlflowServer, told: Callable[..., MlflowRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_run, "CLOSE_SECONDS", 0.3)
    server.seconds = 10.0
    run = told(server.uri)
    until(lambda: bool(server.requests))  # it is waiting for an answer
    begun = time.monotonic()
    for step in range(1, 1001):
        run.scalars(step, {"loss/total": 1.0})
    run.flush()
    assert time.monotonic() - begun < 5
    run.close("FINISHED")
    assert time.monotonic() - begun < 9
    assert run.summary() == f"MLflow at {server.uri} did not get 1000 steps and 0 files: it is too slow"


def test_a_server_that_refuses_is_named_with_its_words_in_the_progress_and_the_report(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_run, "INTERVAL_SECONDS", 0.01)
    seen: list[Any] = []

    def report(_done: int, _total: int, metrics: dict[str, Any], *, final: bool = False) -> None:
        until(lambda: len(server.requests) > 1)  # the first answer has come
        seen.append(metrics.get("mlflow"))

    monkeypatch.setattr(silent, "report", report)
    server.refused = 403
    done = tasks.attempt(make_job({"steps": 2}, **tracking(server.uri)), storage, {}, silent, lambda: False)
    assert done.reason is Reason.COMPLETED
    assert "not yours" in done.message
    assert "RestException: PERMISSION_DENIED: not yours" in seen


def test_an_outage_loses_nothing_that_the_queue_can_hold(tmp_path: Path, told: Callable[..., MlflowRun]) -> None:
    port = free_port()
    with mlflow_server(tmp_path / "server", port) as before:
        run = told(before.uri)
        run.scalars(1, {"loss/total": 1.0})
        until(lambda: bool(before.runs()) and bool(before.runs()[0].data.metrics))
    for step in range(2, 50):
        run.scalars(step, {"loss/total": 1.0})
    until(lambda: bool(run.trouble))
    with mlflow_server(tmp_path / "server", port) as after:
        run.scalars(50, {"loss/total": 1.0})
        until(lambda: len(after.history(after.runs()[0], "loss/total")) == 50)
        until(lambda: not run.trouble)
        run.close("FINISHED")
    assert run.summary() == ""


def test_the_oldest_steps_give_way_when_the_queue_is_full_and_are_counted(
    tmp_path: Path, told: Callable[..., MlflowRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_run, "QUEUE_STEPS", 10)
    port = free_port()
    run = told(f"https://127.0.0.1:{port}")
    for step in range(1, 31):
        run.scalars(step, {"loss/total": 1.0})
    with mlflow_server(tmp_path / "server", port) as server:
        until(lambda: bool(server.runs()) and len(server.history(server.runs()[0], "loss/total")) == 10)
        assert [step for step, _ in server.history(server.runs()[0], "loss/total")] == list(range(21, 31))
        run.close("FINISHED")
    assert run.summary().startswith(f"MLflow at https://127.0.0.1:{port} did not get 20 steps and 0 files")


def test_credentials_come_from_the_environment(
    server: MlflowServer, told: Callable[..., MlflowRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    run = told(server.uri)
    run.scalars(1, {"loss/total": 1.0})
    run.close("FINISHED")
    assert server.authorizations == {"Bearer secret"}


def test_a_server_is_verified_by_the_authorities_of_the_storage(
    tmp_path: Path, make_job: Callable[..., Job], server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED, certifi.where())
    run = MlflowRun(Mlflow(uri=server.uri), make_job(), tmp_path)
    run.scalars(1, {"loss/total": 1.0})
    run.close("FINISHED")
    assert "certificate verify failed" in run.summary()
    assert server.requests == []
    shutil.copy(server.authority, tmp_path / "mlflow-ca.pem")
    again = MlflowRun(Mlflow(uri=server.uri, ca_path="mlflow-ca.pem"), make_job(), tmp_path)
    again.scalars(1, {"loss/total": 1.0})
    again.close("FINISHED")
    assert again.summary() == ""


def test_values_that_are_no_numbers_are_left_out(server: MlflowServer, told: Callable[..., MlflowRun]) -> None:
    run = told(server.uri)
    run.scalars(1, {"loss/total": 1.0, "gradient/norm": float("inf")})
    run.close("FINISHED")
    assert server.runs()[0].data.metrics == {"loss/total": 1.0}


def test_results_of_an_evaluation_go_there_too(tmp_path: Path, make_job: Callable[..., Job], server: MlflowServer) -> None:
    result = MetricResult(metric=Metric.FVD, value="163.2", low="158.9", high="168.0", samples=64, extractor="i3d")
    job = make_job(phase="validate", workPath="runs/demo-01234567/validate", **tracking(server.uri))
    report = tracked(job, tmp_path, World(), Report(message="measured", results=[result]))
    (run,) = server.runs()
    assert run.data.metrics == {"FVD/i3d": 163.2, "FVD/i3d-low": 158.9, "FVD/i3d-high": 168.0}
    assert report.message.startswith("measured")


def test_a_training_without_it_does_not_import_it() -> None:
    asked = "import sys, videogen_trainer.loop, videogen_trainer.tracking.event_files; sys.exit('mlflow' in sys.modules)"
    assert Fork([sys.executable, "-c", asked], {}).wait(HANGS) == 0
