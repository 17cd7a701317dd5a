"""Bad job files, bad input, and unexpected errors: each ends as one reason with one message."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.phase_rules import IN_ONE_POD
from videogen_api.training_run import TRAINING, WITHOUT_PODS, Reason, Task
from videogen_api.tuning import TRAINS_WITH_IT
from videogen_models.bundle import load_model, seal_bundle, verify_bundle
from videogen_trainer import tasks
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.recipe_rules import FAMILIES


def content(job: Job) -> dict[str, Any]:
    wired: dict[str, Any] = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    return wired


@pytest.mark.parametrize(
    "change, reason, message",
    [
        (lambda job: job.update(contract="v2"), Reason.CONTRACT_UNSUPPORTED, "contract is 'v2', this trainer knows 'v1'"),
        (lambda job: job.update(contract="v2", task="Dream"), Reason.CONTRACT_UNSUPPORTED, "trainer image"),
        (lambda job: job.pop("contract"), Reason.INVALID_JOB, "is no job file"),
        (lambda job: job.update(task="Dream"), Reason.INVALID_JOB, "task: .*found 'Dream'"),
        (lambda job: job["recipe"].update(frames=1), Reason.INVALID_JOB, "recipe.frames: .*found 1"),
        (
            lambda job: job["recipe"].update(globalBatchSize=9, gradientAccumulationSteps=2),
            Reason.INVALID_JOB,
            "globalBatchSize is 9; .* 1 x 1 x 2 = 2",
        ),
        (lambda job: job.update(workers=3), Reason.INVALID_JOB, "globalBatchSize is 4; .* 3 x 1 x 1 = 3"),
        (lambda job: job.update(data=[]), Reason.INVALID_JOB, "data is missing"),
        (lambda job: job.update(task="Evaluate"), Reason.INVALID_JOB, "artifact is missing"),
        (lambda job: job.update(task="Curate"), Reason.INVALID_JOB, "curate is missing"),
        (lambda job: job.update(task="Curate", workers=2), Reason.INVALID_JOB, "workers.replicas is 2; Curate runs in one pod"),
        (lambda job: job.update(task="Release"), Reason.INVALID_JOB, "trainer's task"),
        (lambda job: job.update(task="BuildTemplates"), Reason.INVALID_JOB, "artifact is missing"),
        (lambda job: job.update(task="BuildTemplates", workers=2), Reason.INVALID_JOB, "BuildTemplates runs in one pod"),
        (lambda job: job.update(task="TestScenarios"), Reason.INVALID_JOB, "artifact is missing"),
        (lambda job: job.update(task="Optimize"), Reason.INVALID_JOB, "optimize, artifact and data is missing"),
        (lambda job: job.update(task="Optimize", optimize={}), Reason.INVALID_JOB, "artifact"),
        (lambda job: job.update(task="Optimize", optimize={"quantization": "Int4"}), Reason.INVALID_JOB, "optimize.quantization"),
        (lambda job: job.update(task="Optimize", workers=2), Reason.INVALID_JOB, "workers.replicas is 2; Optimize runs in one pod"),
        (lambda job: job.update(workPath="../out"), Reason.INVALID_JOB, "workPath"),
    ],
)
def test_a_bad_job_file_is_refused(
    tmp_path: Path, make_job: Callable[..., Job], change: Callable[[dict[str, Any]], object], reason: Reason, message: str
) -> None:
    job = content(make_job())
    change(job)
    (tmp_path / "job.json").write_text(json.dumps(job))
    with pytest.raises(Failure, match=message) as caught:
        tasks.read_job(tmp_path / "job.json")
    assert caught.value.reason is reason


def test_the_api_refuses_several_pods_for_just_the_tasks_that_run_in_one() -> None:
    assert set(IN_ONE_POD) == set(Task) - set(tasks.SPREAD) - set(WITHOUT_PODS)


def test_a_tuned_value_is_for_every_task_that_trains_its_family() -> None:
    assert [task for task in TRAINING if ModelFamily.VIDEOFUSION in FAMILIES.get(task, tuple(ModelFamily))] == TRAINS_WITH_IT


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_what_is_no_job_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(Failure, match="is no job file"):
        tasks.read_job(tmp_path / "job.json")
    with pytest.raises(Failure, match="is no job file"):
        tasks.read_job(tmp_path / "absent.json")


def test_fields_of_a_newer_operator_are_ignored(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = content(make_job())
    (tmp_path / "job.json").write_text(json.dumps(job | {"colour": "new"}))
    assert tasks.read_job(tmp_path / "job.json") == make_job()


@pytest.mark.parametrize(
    "error, reason",
    [
        (OSError(errno.ENOSPC, "No space left on device"), Reason.STORAGE_FAILED),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), Reason.STORAGE_FAILED),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), Reason.OUT_OF_MEMORY),
        (torch.distributed.DistNetworkError("The client socket has timed out"), Reason.NODE_LOST),
        (RuntimeError("Connection closed by peer"), Reason.TRAINER_FAILED),  # alone: there is no peer
        (FloatingPointError("3 of 96 values of the generated frames are not finite"), Reason.ARTIFACT_INVALID),
        (ZeroDivisionError("division by zero"), Reason.TRAINER_FAILED),
    ],
)
def test_unexpected_errors_have_a_reason(error: Exception, reason: Reason) -> None:
    assert tasks.reason_of(error) is reason


def test_a_bundle_that_generates_nothing_finite_is_not_measured(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter
) -> None:
    made = tasks.attempt(make_job({"steps": 1}), storage, {}, silent, lambda: False).artifact
    assert made
    model = load_model(storage / made.path)
    next(model.parameters()).fill_(torch.nan)
    path, digest = seal_bundle(storage, verify_bundle(storage / made.path), model.save)
    data = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]
    fields = {"data": data, "evaluate": {"samples": 2, "samplingSteps": 1}}
    wanted = make_job(task=Task.EVALUATE, artifact={"path": path, "digest": digest}, **fields)
    report = tasks.attempt(wanted, storage, {}, silent, lambda: False)
    assert report.reason is Reason.ARTIFACT_INVALID
    assert "values of the generated frames are not finite; the model's weights diverged or are damaged" in report.message


def test_an_unexpected_error_ends_as_a_report_and_its_traceback_in_the_log(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(environment: object) -> None:
        raise ZeroDivisionError("in a test")

    monkeypatch.setattr("videogen_trainer.distributed.join", fail)
    report = tasks.attempt(make_job(), storage, {}, silent, lambda: False)
    assert (report.reason, report.message) == (Reason.TRAINER_FAILED, "ZeroDivisionError: in a test")
    assert "Traceback" in caplog.text


def test_a_storage_that_is_not_mounted_is_told(tmp_path: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> None:
    report = tasks.attempt(make_job(), tmp_path / "absent", {}, silent, lambda: False)
    assert report.reason is Reason.STORAGE_FAILED
    assert "mount the run's persistent volume claim" in report.message
