"""Task TestScenarios, whole: a bundle, clips and scenarios in, outcomes, results and a page out."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.training_run import Reason
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import Request
from videogen_serving.settings import Settings
from videogen_testing.attempted import Attempted
from videogen_testing.curation import silent
from videogen_trainer import tasks
from videogen_trainer.emergency import runtime

FOLDER = "runs/demo-01234567/work/scenarios"
ANY = {"minimumCoherence": "0", "maximumArtefactRate": "1"}
WANTED: dict[str, Any] = {"table": "scenarios.jsonl", "samplingSteps": 2, "quality": ANY}
PROMPTS = ["a red square moves right", "a blue circle", "a green triangle grows", "a white square"]
Attempt = Callable[..., Report]


@pytest.fixture(scope="module")
def attempt_in(emergency_job: Callable[..., Job]) -> Callable[..., Report]:
    """`attempt_in(storage, scenarios={...}, stop=..., **job)`: WANTED, four scenarios of a table, with changes."""

    def run(storage: Path, scenarios: dict[str, Any] | None = None, stop: Callable[[], bool] = lambda: False, **fields: Any) -> Report:
        rows = [{"prompt": prompt, "category": "flood", "urgency": "immediate"} for prompt in PROMPTS]
        (storage / "scenarios.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = emergency_job("TestScenarios", scenarios=WANTED | (scenarios or {}), **fields)
        return tasks.attempt(job, storage, {}, silent(), stop)

    return run


def outcomes(storage: Path, name: str = "outcomes.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (storage / FOLDER / name).read_text().splitlines()]


def named(report: Report) -> dict[Metric, MetricResult]:
    assert report.reason is Reason.COMPLETED, report.message
    return {result.metric: result for result in report.results}


def test_every_scenario_has_an_outcome_and_together_they_are_results(once: Attempted, artifact: ArtifactReference) -> None:
    storage, report = once.storage, once.report
    found = named(report)
    assert set(found) == {Metric.SCENARIO_PASS_RATIO, Metric.GENERATION_SECONDS}
    assert {(result.frames, result.resolution is not None) for result in found.values()} == {(4, True)}
    assert (found[Metric.SCENARIO_PASS_RATIO].value, found[Metric.SCENARIO_PASS_RATIO].samples) == ("1.000000", 4)
    assert report.message.startswith("4 of 4 scenarios passed; the slowest, line-000")
    assert report.artifact == artifact
    written = outcomes(storage)
    assert [(one["prompt"], one["outcome"], one["passed"]) for one in written] == [(prompt, "ok", True) for prompt in PROMPTS]
    slowest = max(one["seconds"] for one in written)
    assert f"worst {slowest:.3f} s" in found[Metric.GENERATION_SECONDS].message
    assert float(found[Metric.GENERATION_SECONDS].value) == pytest.approx(slowest, abs=1e-3)
    for one in written:
        assert hashlib.sha256((storage / FOLDER / one["video"]).read_bytes()).hexdigest() == one["videoSha256"]
        assert one["seconds"] > 0
        assert 0 <= one["coherence"] <= 1
    page = (storage / FOLDER / "scenarios.html").read_text()
    assert page.count("<img") == page.count('<li class="good">') == 4
    assert '<a href="line-0001.mp4">' in page


def test_a_scenarios_video_is_the_servers(once: Attempted, artifact: ArtifactReference) -> None:
    storage = once.storage
    settings = Settings(release="x", bundle_path=storage / artifact.path, bundle_digest=artifact.digest, sampling_steps=2)
    pipeline = Pipeline.load(settings, clock=lambda: 0.0, new_seed=lambda: 0)
    for one in outcomes(storage):
        answer = pipeline.generate(Request(prompt=one["prompt"], seed=one["seed"]))
        assert (storage / FOLDER / one["video"]).read_bytes() == answer.video


def test_a_scenario_that_takes_too_long_is_stopped_by_the_server_and_fails(
    storage: Path, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "time", SimpleNamespace(perf_counter=itertools.count(0, 0.4).__next__))  # at each look it is later
    report = attempt({"samplingSteps": 1000, "maximumSeconds": 1, "samples": 1})
    (one,) = outcomes(storage)
    assert (one["outcome"], one["passed"], "video" in one and one["video"]) == ("timeout", False, "")
    assert one["reason"].startswith("timeout: the generation took 1.")
    assert "the release allows 1 s" in one["reason"]
    found = named(report)
    assert float(found[Metric.SCENARIO_PASS_RATIO].value) == 0
    assert float(found[Metric.GENERATION_SECONDS].value) > 1
    assert "timeout: 1" in found[Metric.SCENARIO_PASS_RATIO].message
    assert '<div class="no">no picture</div>' in (storage / FOLDER / "scenarios.html").read_text()


def test_scenarios_whose_videos_are_not_good_enough_fail_with_their_reason_and_the_others_count(
    after: Path, attempt_in: Callable[..., Report]
) -> None:
    likeness = sorted(one["similarity"] for one in outcomes(after))
    bound = f"{(likeness[1] + likeness[2]) / 2:.6f}"
    report = attempt_in(after, {"quality": ANY | {"relevance": {"minimumSimilarity": bound}}})
    assert named(report)[Metric.SCENARIO_PASS_RATIO].value == "0.500000"
    for one in outcomes(after):
        assert one["passed"] is (one["similarity"] >= float(bound))
        assert one.get("reason", "").startswith("similarity is " if not one["passed"] else "")
    assert "first that failed: line-000" in report.message


def test_an_interrupted_attempt_asks_only_what_is_not_answered(storage: Path, attempt: Attempt) -> None:
    log = storage / FOLDER / "outcomes-0.jsonl"
    stopped = attempt(stop=lambda: log.exists() and log.read_text().count("\n") == 2)
    assert stopped.reason is Reason.PREEMPTED
    first = log.read_text()
    log.write_text(first + '{"key": "torn')
    report = attempt()
    assert named(report)[Metric.SCENARIO_PASS_RATIO].samples == 4
    assert log.read_text().startswith(first)
    assert len([line for line in log.read_text().splitlines() if not line.startswith('{"key": "torn')]) == 4
    assert [one["prompt"] for one in outcomes(storage)] == PROMPTS


def test_an_answer_that_was_lost_or_is_of_another_job_is_asked_again(after: Path, attempt_in: Callable[..., Report]) -> None:
    (after / FOLDER / "line-0002.mp4").write_bytes(b"x")
    assert named(attempt_in(after))[Metric.SCENARIO_PASS_RATIO].samples == 4
    assert [one["id"] for one in outcomes(after, "outcomes-0.jsonl")] == ["line-0001", "line-0002", "line-0003", "line-0004", "line-0002"]
    attempt_in(after, {"samplingSteps": 3})
    assert len(outcomes(after, "outcomes-0.jsonl")) == 9


def test_a_stop_in_the_middle_of_a_video_ends_it(storage: Path, attempt: Attempt) -> None:
    looks = iter(range(100))
    stopped = attempt({"samplingSteps": 50}, stop=lambda: next(looks) > 5)
    assert stopped.reason is Reason.PREEMPTED
    assert not (storage / FOLDER).exists()


def test_prompts_that_the_server_refuses_are_failed_scenarios(storage: Path, attempt: Attempt) -> None:
    """A right-to-left override is no text that a person typed; the server says so."""
    row = {"prompt": "a red \u202esquare", "category": "flood", "urgency": "immediate"}
    (storage / "odd.jsonl").write_text(json.dumps(row))
    attempt({"table": "odd.jsonl"})
    (one,) = outcomes(storage)
    assert one["reason"].startswith("invalid: PROMPT has the unprintable character U+202E")


def test_several_processes_share_the_scenarios(
    once: Attempted, storage: Path, start_trainer: Callable[..., Any], emergency_job: Callable[..., Job]
) -> None:
    shutil.copy(once.storage / "scenarios.jsonl", storage)
    job = emergency_job("TestScenarios", scenarios=WANTED, processesPerWorker=2)
    code, report = start_trainer(job).wait()
    assert (code, report.reason) == (0, Reason.COMPLETED), report.message
    assert named(report)[Metric.SCENARIO_PASS_RATIO].samples == 4
    assert [len(outcomes(storage, f"outcomes-{rank}.jsonl")) for rank in (0, 1)] == [2, 2]
    alone, together = ({one["id"]: one["videoSha256"] for one in outcomes(place)} for place in (once.storage, storage))
    assert alone == together
