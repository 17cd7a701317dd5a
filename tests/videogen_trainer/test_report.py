"""The termination message and the exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from videogen_api.evaluation import Evaluation, Metric, MetricResult, Normalization
from videogen_api.job import ArtifactReference, ExitCode, Report
from videogen_api.model_release import ModelReleaseStatus
from videogen_api.optimization import LOSSES, ExportFormat, MetricLoss, NetworkExport, Optimization
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Resolution
from videogen_api.training_run import PhaseStatus, Reason
from videogen_trainer import report
from videogen_trainer.evaluate import task
from videogen_trainer.evaluate.artefacts import FLOORS
from videogen_trainer.evaluate.extractors import Extractors
from videogen_trainer.evaluate.measure import decimal
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


ADMITTED = Evaluation.model_json_schema()["properties"]["extractors"]
NETWORKS: int = ADMITTED["maxItems"]
CLIPS = int(re.findall(r"<= (\d+)", ADMITTED["x-kubernetes-validations"][0]["rule"])[0])
DIGEST = "sha256:" + "f" * 64
OWN = tuple(f"{number:x>30}" for number in range(9))  # as long as a name may be
NAMES = ("video-classifier", "text-video-encoder", *OWN)


def longest(result: MetricResult) -> MetricResult:
    """The same result with numbers as long as they can be: CLIP's two metrics are small, the others may be anything."""
    bounded = result.metric in {Metric.CLIP_SCORE, Metric.TEMPORAL_COHERENCE, Metric.LANGUAGE_SCORE}
    number = decimal(-1.23456e-10 if bounded else 999_999_999.0)
    most = "1000" if result.maximum else None
    numbers = {"value": number, "low": number, "high": number, "maximum": most}
    return result.model_copy(update=numbers | {"samples": 1_000_000, "message": "m" * 200})


def measured(i3d: int, clip: int) -> Report:
    """The longest report of an evaluation with so many networks of the user's own, beside the default ones."""
    names = iter(OWN)
    classifier = SimpleNamespace(name="video-classifier", digest=DIGEST)
    networks = [SimpleNamespace(name=next(names), digest=DIGEST) for _ in range(i3d)]
    encoders = [
        SimpleNamespace(name=name, digest=DIGEST, caption_embeddings=lambda captions: np.ones((len(captions), 2)), unknown=lambda _: False)
        for name in ("text-video-encoder", *(next(names) for _ in range(clip)))
    ]
    rows = {f"features of {name}": np.eye(4, 2) for name in NAMES} | {f"classes of {NAMES[0]}": np.full((4, 2), np.log(0.5))}
    rows |= {f"{kind} by {name}": np.ones(4) for kind in ("similarity", "steadiness") for name in NAMES}
    rows |= {"motion": np.ones(4), "seconds": np.ones((4, 2)), "artefacts": np.ones((4, len(FLOORS)))}
    extractors = Extractors(features=(classifier, *networks), classifiers=(classifier,), encoders=tuple(encoders))  # type: ignore[arg-type]
    made = rows | {"artefacts": np.ones((4, 2, len(FLOORS)))}
    references = task.References(clips=[], captions=["flood", "fire", "जल", "आग"], resolved=[], order=[2, 0, 3, 1])
    results = task.results(rows, made, references, extractors, 0, "on a CPU")
    artifact = ArtifactReference(path="b" * 256, digest=DIGEST)
    message = f"{10**6} generated clips against {10**9} real ones"
    results = [longest(result) for result in results]
    largest = Resolution(height=1024, width=1024)
    return Report(message=message, artifact=artifact, datasets=DATASETS, results=results, frames=113, resolution=largest)


def test_the_longest_evaluation_that_is_admitted_fits() -> None:
    full = measured(NETWORKS - CLIPS, CLIPS)
    report.require_results(full)
    kept = Report.model_validate_json(report.to_bytes(full)).results
    assert kept == [result.model_copy(update={"message": ""}) for result in full.results]
    assert {(result.frames, result.resolution) for result in kept} == {(113, Resolution(height=1024, width=1024))}, "told once"
    assert len(kept) == 7 + (NETWORKS - CLIPS) + 4 * CLIPS
    for status, field in ((PhaseStatus, "results"), (ModelReleaseStatus, "evaluation")):
        assert len(kept) <= status.model_json_schema()["properties"][field]["maxItems"]


def test_the_longest_report_of_an_optimisation_fits() -> None:
    """The default networks' results, every loss, and four networks in two formats, with numbers as long as they can be."""
    number = decimal(-999_999_999.0)
    losses = [
        MetricLoss(metric=metric, unoptimized=number, loss=number, low=number, high=number, normalization=Normalization.CLIP_SCORE_25)
        for metric in LOSSES
    ]
    exports = [
        NetworkExport(network="residual-generator", format=format_, maximum_difference="1.23457e-10")
        for format_ in ExportFormat
        for _ in range(4)
    ]
    made = Optimization(unoptimized_bytes=2**53, optimized_bytes=2**53, losses=losses, exports=exports)
    full = measured(0, 0).model_copy(update={"optimization": made, "message": "m" * 512})
    kept = Report.model_validate_json(report.to_bytes(full))
    assert kept.optimization == made
    assert kept.results == [result.model_copy(update={"message": ""}) for result in full.results]
    assert len(kept.results) == 7


def test_an_evaluation_whose_results_do_not_fit_is_told_and_not_cut() -> None:
    with pytest.raises(Failure, match=r"evaluate.extractors: the report with 18 results has \d{4} bytes, a pod keeps 4096") as caught:
        report.require_results(measured(NETWORKS - CLIPS, CLIPS + 1))
    assert caught.value.reason is Reason.RESULTS_TOO_LARGE


def test_a_report_that_cannot_be_written_is_no_failure_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report.write(Report(), tmp_path / "absent" / "message")
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    "reason, code",
    [
        (Reason.COMPLETED, 0),
        (Reason.TRAINER_FAILED, 1),
        (Reason.INVALID_JOB, 64),
        (Reason.RESULTS_TOO_LARGE, 64),
        (Reason.CONTRACT_UNSUPPORTED, 65),
        (Reason.DATASET_CORRUPT, 66),
        (Reason.ARTIFACT_INVALID, 67),
        (Reason.EXTRACTOR_MISSING, 68),
        (Reason.EXPORT_FAILED, 69),
        (Reason.TENSORRT_UNAVAILABLE, 69),
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
        (of(Reason.TRAINER_FAILED, Reason.ARTIFACT_INVALID), {0: 1, 1: 66}, Reason.ARTIFACT_INVALID),
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
        "a cause goes before an import that its end broke",
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
