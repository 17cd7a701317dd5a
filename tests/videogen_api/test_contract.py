"""The contract between operator and trainer: sizes, skew, digests."""

import json

import pytest
from pydantic import ValidationError

from videogen_api.bundle import canonical_json, manifest_digest
from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, ExitCode, Report, work_path
from videogen_api.model_release import Artifact as ArtifactSpec
from videogen_api.training_run import Reason
from videogen_api.tuning import Trial

LIMIT = 4096  # bytes of a termination message
DIGEST = "sha256:" + "0" * 64


def test_a_full_report_fits_a_termination_message() -> None:
    results = [
        MetricResult(metric=metric, value="-123456789.123456789", low="-123456789.123456789", high="-123456789.123456789", samples=10_000_000,
                     extractor="i3d-kinetics400", extractor_digest=DIGEST)
        for metric in Metric
    ]  # fmt: skip
    report = Report(
        reason=Reason.COMPLETED, message="x" * 512, artifact=ArtifactReference(path="bundles/a/b", digest=DIGEST), results=results
    )
    assert len(json.dumps(report.wire()).encode()) <= LIMIT


def test_a_report_of_the_most_trials_fits_a_termination_message() -> None:
    value = "-123456789.123456789"
    trials = [Trial(value=f"0.7{number:03}", metric=Metric.TEMPORAL_COHERENCE, result=value, low=value, high=value) for number in range(16)]
    report = Report(reason=Reason.COMPLETED, message="x" * 512, trials=trials)
    assert len(json.dumps(report.wire()).encode()) <= LIMIT


def test_a_reader_ignores_fields_of_a_newer_writer() -> None:
    assert Report.model_validate({"reason": "Completed", "fromTheFuture": 1}).reason is Reason.COMPLETED


def test_a_spec_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="fromTheFuture"):
        ArtifactSpec.model_validate({"claimName": "c", "path": "p", "digest": DIGEST, "fromTheFuture": 1})


def test_exit_codes_are_distinct_and_fit_a_byte() -> None:
    assert len({int(code) for code in ExitCode}) == len(ExitCode)
    assert all(0 <= code < 128 for code in ExitCode)


def test_equal_values_have_equal_bytes_and_digests() -> None:
    one, other = {"b": 1, "a": ["λ"]}, {"a": ["λ"], "b": 1}
    assert canonical_json(one) == canonical_json(other) == '{"a":["λ"],"b":1}\n'.encode()
    assert manifest_digest(canonical_json(one)) == manifest_digest(canonical_json(other))


def test_runs_of_one_name_never_share_checkpoints() -> None:
    assert work_path("a", "11111111-aaaa", "train") != work_path("a", "22222222-aaaa", "train")
