"""What a report of a trainer must be, so that everything behind the inbox can read it."""

from typing import Any

import pytest
from pydantic import ValidationError

from videogen_api.progress import Progress
from videogen_operator.inbound.inbox import TrainerStatus
from videogen_operator.kinds.training_run.status import worth_writing

BEFORE = Progress.model_validate({"progressPercentage": 1, "lastUpdatedTime": "2026-11-01T00:00:00Z"})
LATER = ("2026-11-01T00:00:19Z", "2026-11-01T00:00:19.123456789Z", "2026-11-01T05:30:19+05:30", "2026-10-31T23:00:19.5-01:00")
NO_TIMES: dict[str, Any] = {
    "a word": "yesterday",
    "nothing": "",
    "no zone": "2026-11-01T00:00:19",
    "a date": "2026-11-01",
    "a number": "1700000000",
    "a number that is no text": 1700000000,
    "a month that is none": "2026-13-01T00:00:19Z",
    "an hour that is none": "2026-11-01T25:00:19Z",
    "a zone that is none": "2026-11-01T00:00:19+99:00",
    "the basic form": "20261101T000019Z",
    "more behind it": "2026-11-01T00:00:19Z\n",
    "other digits": "\u0662\u0660\u0662\u0666-11-01T00:00:19Z",
}


@pytest.mark.parametrize("time", LATER)
def test_a_time_with_its_zone_is_understood_wherever_it_is_read(time: str) -> None:
    report = TrainerStatus.model_validate({"progressPercentage": 2, "lastUpdatedTime": time}).wire()
    assert report["lastUpdatedTime"] == time
    assert worth_writing(BEFORE, Progress.model_validate(report))


@pytest.mark.parametrize(("time", "due"), [("00:00:14", False), ("00:00:15", True), ("00:59:00", True)])
def test_progress_is_written_after_some_seconds_by_its_own_clock(time: str, due: bool) -> None:
    told = Progress.model_validate({"progressPercentage": 2, "lastUpdatedTime": f"2026-11-01T{time}Z"})
    assert worth_writing(BEFORE, told) == due


def test_a_trainer_on_a_node_whose_clock_is_behind_is_heard_all_the_same() -> None:
    assert worth_writing(BEFORE, Progress.model_validate({"lastUpdatedTime": "2026-10-31T23:00:00Z"}))


@pytest.mark.parametrize("time", NO_TIMES.values(), ids=NO_TIMES.keys())
def test_what_is_no_time_is_refused_by_the_name_of_its_field(time: object) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainerStatus.model_validate({"lastUpdatedTime": time})
    assert [error["loc"] for error in refused.value.errors()] == [("lastUpdatedTime",)]


def test_a_report_without_a_time_is_one() -> None:
    assert TrainerStatus.model_validate({"lastUpdatedTime": None}).last_updated_time is None
    assert TrainerStatus.model_validate({"progressPercentage": 7}).wire()["progressPercentage"] == 7
