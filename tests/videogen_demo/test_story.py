"""What the story demands of what it has seen."""

import pytest

from videogen_demo.kubectl import CommandError
from videogen_demo.load import Answer
from videogen_demo.story import RELEASES, judge_answers, judge_rollback

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
