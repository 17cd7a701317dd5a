"""The termination message and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, ExitCode, Report
from videogen_api.training_run import Reason, ResolvedDataset
from videogen_trainer import report
from videogen_trainer.failure import EXIT_CODES, Failure
from videogen_trainer.launch import combine

ARTIFACT = ArtifactReference(path="bundles/" + "a" * 200, digest="sha256:" + "0" * 64)
RESULTS = [MetricResult(metric=Metric.FVD, value="1.5", samples=10, extractor="x" * 63, message="ü" * 1024) for _ in range(16)]
DATASETS = [ResolvedDataset(dataset="d" * 30, version="v" * 40, digest="sha256:" + "0" * 64) for _ in range(16)]


@pytest.mark.parametrize(
    "full",
    [
        Report(),
        Report(message="x" * 1024),
        Report(message="🎬" * 1024, artifact=ARTIFACT),
        Report(message="\x00" * 1024, artifact=ARTIFACT),
        Report(message="ü" * 1024, artifact=ARTIFACT, results=RESULTS),
        Report(message="ü" * 1024, artifact=ARTIFACT, results=RESULTS, datasets=DATASETS),
    ],
    ids=["empty", "long", "four bytes a letter", "six bytes a letter", "long results", "everything"],
)
def test_every_report_fits_and_keeps_what_decides(full: Report) -> None:
    data = report.to_bytes(full)
    assert len(data) <= 4096
    read = Report.model_validate_json(data)
    assert (read.reason, read.artifact, read.last_step) == (full.reason, full.artifact, full.last_step)


def test_metrics_outlive_their_messages() -> None:
    read = Report.model_validate_json(report.to_bytes(Report(results=RESULTS)))
    assert [result.value for result in read.results] == ["1.5"] * 16
    assert {result.message for result in read.results} == {""}


def test_a_report_that_cannot_be_written_is_no_failure_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report.write(Report(), tmp_path / "absent" / "message")
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    "reason, code",
    [
        (Reason.COMPLETED, 0),
        (Reason.TRAINER_FAILED, 1),
        (Reason.INVALID_JOB, 64),
        (Reason.CONTRACT_UNSUPPORTED, 65),
        (Reason.DATASET_CORRUPT, 66),
        (Reason.ARTIFACT_INVALID, 67),
        (Reason.EXTRACTOR_MISSING, 68),
        (Reason.DIVERGED, 70),
        (Reason.OUT_OF_MEMORY, 71),
        (Reason.NODE_LOST, 72),
        (Reason.STORAGE_FAILED, 74),
        (Reason.PREEMPTED, 75),
    ],
)
def test_each_reason_has_its_exit_code(reason: Reason, code: int) -> None:
    assert report.exit_code(Report(reason=reason)) == code


def test_every_exit_code_is_in_use() -> None:
    assert set(EXIT_CODES.values()) == set(ExitCode)


def test_a_failure_says_how_far_the_attempt_came() -> None:
    made = report.of_failure(Failure(Reason.DIVERGED, "y" * 2000), report.Milestones(resumed_from_step=5, last_step=10))
    assert (made.reason, made.resumed_from_step, made.last_step, len(made.message)) == (Reason.DIVERGED, 5, 10, 1024)
    assert json.loads(report.to_bytes(made))["resumedFromStep"] == 5


def of(*reasons: Reason) -> list[Report]:
    return [Report(reason=reason) for reason in reasons]


@pytest.mark.parametrize(
    "reports, exit_codes, reason",
    [
        (of(Reason.COMPLETED, Reason.COMPLETED), {}, Reason.COMPLETED),
        (of(Reason.NODE_LOST, Reason.DIVERGED), {0: 72, 1: 70}, Reason.DIVERGED),
        (of(Reason.NODE_LOST), {0: 72, 1: -9}, Reason.OUT_OF_MEMORY),
        (of(Reason.NODE_LOST, Reason.PREEMPTED), {0: 72, 1: 75}, Reason.PREEMPTED),
        (of(Reason.NODE_LOST), {0: 72, 1: -15}, Reason.NODE_LOST),
        (of(Reason.NODE_LOST), {0: 72, 1: -11}, Reason.TRAINER_FAILED),
        (of(Reason.COMPLETED), {1: -11}, Reason.TRAINER_FAILED),
        (of(Reason.COMPLETED), {1: 1}, None),
        ([], {}, None),
    ],
    ids=[
        "all completed",
        "a cause goes before a lost peer",
        "a process killed for memory goes before a lost peer",
        "preemption goes before a lost peer",
        "a process that the agent ended is an echo",
        "a crash goes before a lost peer",
        "one completed, one crashed",
        "one completed, one failed silently",
        "nothing is known",
    ],
)
def test_the_pods_report_is_the_cause(reports: list[Report], exit_codes: dict[int, int], reason: Reason | None) -> None:
    combined = combine(reports, exit_codes)
    assert (combined.reason if combined else None) is reason
