"""The rollout's value in the status and back: times as RFC 3339 with whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime

from videogen_api.model_release import RolloutState
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release.rollout import Rollout
from videogen_operator.kinds.model_release.states import State


def read(remembered: RolloutState | None) -> Rollout:
    """The value as the last pass left it. Raises ValueError for a state that this version does not know."""
    if remembered is None:
        return Rollout()
    return Rollout(
        state=State(remembered.state),
        step=remembered.step,
        since=moment(remembered.step_start_time),
        traffic_since=moment(remembered.traffic_start_time),
        last_check=moment(remembered.last_check_time),
        requests=remembered.requests,
        failed_rounds=remembered.failed_checks,
        lost=moment(remembered.pods_lost_time),
        promoted=moment(remembered.promoted_time),
        retired=moment(remembered.retired_time),
        retried=remembered.retried,
        reason=remembered.reason,
        message=remembered.message,
        verdicts=tuple(remembered.verdicts),
    )


def write(rollout: Rollout) -> RolloutState:
    """The value for the status."""
    return RolloutState(
        state=rollout.state.value,
        step=rollout.step,
        step_start_time=_text(rollout.since),
        traffic_start_time=_text(rollout.traffic_since),
        last_check_time=_text(rollout.last_check),
        requests=rollout.requests,
        failed_checks=rollout.failed_rounds,
        pods_lost_time=_text(rollout.lost),
        promoted_time=_text(rollout.promoted),
        retired_time=_text(rollout.retired),
        retried=rollout.retried,
        reason=rollout.reason,
        message=rollout.message[:1024],
        verdicts=[verdict.model_copy(update={"message": verdict.message[:1024]}) for verdict in rollout.verdicts],
    )


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time of the API, or None if there is none or it is none."""
    try:
        parsed = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return parsed if parsed is None or parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _text(time: datetime | None) -> str | None:
    return timestamp(time) if time else None
