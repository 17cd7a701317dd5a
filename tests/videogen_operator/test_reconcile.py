"""What the shell adds to a plan: how long a rollback took."""

from datetime import UTC, datetime, timedelta

import pytest

from videogen_operator.plan import Plan, StatusWrite
from videogen_operator.reconcile import timed

ARRIVED = datetime(2026, 1, 1, tzinfo=UTC)
ALERT = {"fingerprint": "f", "receivedAt": ARRIVED.isoformat(), "labels": {"release": "bad"}}


def statuses(plan: Plan) -> list[str]:
    return [write.status.get("rollback", {}).get("seconds", "-") for write in plan.statuses]


@pytest.mark.parametrize(
    ("answer", "recorded", "expected"),
    [
        ("RolledBack", "", "0.042"),
        ("RolledBack", "0.007", "0.007"),  # a repeated alert does not change what was measured
        ("Stale", "", ""),
    ],
)
def test_the_seconds_of_a_rollback_run_from_the_alert_that_caused_it(answer: str, recorded: str, expected: str) -> None:
    bad = StatusWrite({"metadata": {"name": "bad"}}, {"rollback": {"reason": "Alert", "seconds": recorded}})
    good = StatusWrite({"metadata": {"name": "good"}}, {})
    plan = Plan(statuses=(bad, good), answers={"f": answer})
    assert statuses(timed(plan, (ALERT,), ARRIVED + timedelta(milliseconds=42))) == [expected, "-"]
