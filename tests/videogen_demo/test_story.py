"""What the story demands of what it has seen."""

from datetime import datetime

import pytest
import yaml

from videogen_api.fine_tune_cycle import FineTuneCycleSpec
from videogen_api.training_run import TrainingRunSpec
from videogen_demo.kubectl import CommandError
from videogen_demo.load import REQUEST_SECONDS, Answer
from videogen_demo.story import (
    LIMITS_A_VIDEO,
    MANIFESTS,
    RELEASES,
    RUNS,
    judge_answers,
    judge_rollback,
    limit_above,
    next_minute,
    with_latency_limit,
    with_schedule,
)

MODEL = {"family": "VideoFusion", "version": "1.1.0"}
GOOD = Answer(sent=1.0, received=1.5, release=RELEASES[0], status=200)


def test_a_rollback_by_the_alert_is_what_the_story_is_about() -> None:
    judge_rollback({"reason": "Alert", "message": "VideogenReleaseLatencyHigh"})


@pytest.mark.parametrize("reason", ["CheckFailed", "PodsLost", "Requested"])
def test_a_rollback_for_another_reason_fails_the_story(reason: str) -> None:
    with pytest.raises(CommandError, match=rf"v1\.2\.0-base was rolled back by {reason}, not by its alert: because; look at"):
        judge_rollback({"reason": reason, "message": "because"})


def test_a_story_whose_requests_all_got_a_video_is_a_good_one() -> None:
    judge_answers([GOOD, GOOD])


FAILED = {
    "503 of a release": (
        Answer(sent=1.0, received=3.0, release=RELEASES[1], status=503),
        r"with status 503 from \S+v1\.1\.0-base after 2\.0 s",
    ),
    "504 of the gateway": (Answer(sent=1.0, received=3.0, release="", status=504), r"with status 504 from no release"),
    "a connection that broke": (Answer(sent=1.0, received=3.0, release="", status=0), r"without an answer from no release"),
}


@pytest.mark.parametrize(("bad", "message"), FAILED.values(), ids=FAILED.keys())
def test_one_request_without_a_video_fails_the_story(bad: Answer, message: str) -> None:
    with pytest.raises(CommandError, match=f"1 of 3 requests got no video, the first {message}"):
        judge_answers([GOOD, bad, GOOD])


def released_by(index: int) -> dict[str, object]:
    """The release of a run of the story, with the defaults of the API."""
    manifest = yaml.safe_load((MANIFESTS / f"{RUNS[index]}.yaml").read_text())
    spec = manifest["spec"] if manifest["kind"] == "TrainingRun" else {"model": MODEL} | manifest["spec"]["runTemplate"]["spec"]
    release = TrainingRunSpec.model_validate(with_latency_limit({"spec": spec}, 0.75)["spec"]).phases[-1].release
    assert release is not None
    return {
        "steps": release.serving.sampling_steps,
        "timeout": release.serving.timeout_seconds,
        "limits": [check.maximum for check in release.rollout.checks if check.metric == "LatencyP95Seconds"],
        "rounds": release.rollout.check_interval_seconds,
    }


def test_the_slow_release_breaks_its_limit_on_any_machine_and_is_found_by_the_alert_first() -> None:
    """What every video costs besides its steps was at most that of 20 steps on the machines where it was measured."""
    fast, slow = released_by(1), released_by(2)
    besides = 20
    slower = (slow["steps"] + besides) / (fast["steps"] + besides)
    for fastest in (seconds / 1000 for seconds in range(20, 7_000, 7)):
        assert LIMITS_A_VIDEO * fastest <= limit_above(fastest) < slower * fastest
    assert slow["limits"] == ["0.7500"]
    # A video of 1.2.0 has time on a machine where it takes four minutes, and two of them before a round of checks.
    assert 240 <= slow["timeout"] < REQUEST_SECONDS
    assert slow["rounds"] >= 2 * 240


@pytest.mark.parametrize(
    ("now", "cron"),
    [
        ("2026-11-30T23:22:10+00:00", "23 23 30 11 *"),
        ("2026-11-30T23:22:55+00:00", "24 23 30 11 *"),
        ("2026-12-31T23:59:00+00:00", "0 0 1 1 *"),
        ("2026-12-31T23:59:55Z", "1 0 1 1 *"),
    ],
)
def test_the_cycle_is_due_at_the_next_minute_that_it_can_be_told_of(now: str, cron: str) -> None:
    cycle = yaml.safe_load((MANIFESTS / f"{RUNS[1]}.yaml").read_text())
    due = next_minute(datetime.fromisoformat(now))
    assert with_schedule(cycle, due)["spec"]["schedule"] == cron
    assert FineTuneCycleSpec.model_validate(with_schedule(cycle, due)["spec"]).time_zone == "Etc/UTC"
    assert "schedule" not in cycle["spec"]
