"""Who takes how much of the service's traffic: it follows from the states and the ready pods, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.rollout import carried, step_of
from videogen_operator.kinds.model_release.states import CANARIES, State


def weights(releases: Iterable[Release]) -> dict[str, int]:
    """Percent by release. The sum is 100 as soon as anything has served, and 0 before.

    A canary takes its step's weight, but never more than the share that its reachable pods can carry; the rest is the
    stable release's. A release without a reachable pod takes nothing while another one has ready pods: then the
    standby, which is proven, or else a canary takes it all. If nobody has a ready pod, the stable release keeps what it has: moving traffic
    between the dead only loses the way back.
    """
    by_state = {release.rollout.state: release for release in sorted(releases, key=_promoted)}
    stable, standby = by_state.get(State.STABLE), by_state.get(State.STANDBY)
    canary = next((by_state[state] for state in CANARIES if state in by_state), None)
    share = _share(canary, stable) if canary else 0
    if stable and stable.reachable > 0:
        split = {stable.name: 100 - share}
        return split | {canary.name: share} if canary else split
    heir = next((release for release in (standby, canary) if release and release.ready > 0), stable)
    return {heir.name: 100} if heir else {}


def _share(canary: Release, stable: Release | None) -> int:
    beside = stable.spec.serving.replicas if stable else 0
    return min(step_of(canary.rollout, canary.spec).weight_percent, carried(canary.reachable, canary.spec, beside))


def _promoted(release: Release) -> float:
    return release.rollout.promoted.timestamp() if release.rollout.promoted else 0.0
