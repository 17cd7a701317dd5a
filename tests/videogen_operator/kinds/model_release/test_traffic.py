"""Who takes how much: rows of states and pods, each with the split that follows."""

from collections.abc import Callable
from typing import Any

import pytest

from videogen_operator.kinds.model_release import objects, route
from videogen_operator.kinds.model_release.observed import Observed
from videogen_operator.kinds.model_release.traffic import weights
from videogen_testing.releases import SETTINGS, a_release, name_of

STEPS = {"steps": [{"weightPercent": 20}, {"weightPercent": 80}], "checks": []}
Pods = tuple[str, int, int]  # state, ready pods, available pods; all of four replicas

ROWS: list[tuple[str, dict[str, Pods], dict[str, int]]] = [
    ("nobody has served yet", {"1.0.0": ("Starting", 0, 0)}, {}),
    ("a stable release takes all", {"1.0.0": ("Stable", 4, 4)}, {"1.0.0": 100}),
    ("also with some of its pods", {"1.0.0": ("Stable", 1, 1)}, {"1.0.0": 100}),
    ("a canary takes its step", {"1.0.0": ("Stable", 4, 4), "1.1.0": ("Canary", 4, 4)}, {"1.0.0": 80, "1.1.0": 20}),
    ("one that is held, too", {"1.0.0": ("Stable", 4, 4), "1.1.0": ("Held", 4, 4)}, {"1.0.0": 80, "1.1.0": 20}),
    ("a canary without pods takes nothing", {"1.0.0": ("Stable", 4, 4), "1.1.0": ("Canary", 0, 0)}, {"1.0.0": 100, "1.1.0": 0}),
    ("nor one whose pods the gateway does not know", {"1.0.0": ("Stable", 4, 4), "1.1.0": ("Canary", 4, 0)}, {"1.0.0": 100, "1.1.0": 0}),
    ("what starts takes nothing", {"1.0.0": ("Stable", 4, 4), "1.1.0": ("Starting", 4, 4)}, {"1.0.0": 100}),
    ("nor what waits or is done", {"1.0.0": ("Stable", 4, 4), "1.1.0": ("RolledBack", 4, 4), "1.2.0": ("Queued", 0, 0)}, {"1.0.0": 100}),
    ("the standby carries for a stable one without pods", {"1.0.0": ("Standby", 4, 4), "1.1.0": ("Stable", 0, 0)}, {"1.0.0": 100}),
    (
        "the proven standby rather than the canary",
        {"1.0.0": ("Standby", 4, 4), "1.1.0": ("Stable", 0, 0), "1.2.0": ("Canary", 4, 4)},
        {"1.0.0": 100},
    ),
    ("the canary where there is no other", {"1.0.0": ("Stable", 0, 0), "1.1.0": ("Canary", 4, 4)}, {"1.1.0": 100}),
    ("between the dead nothing moves", {"1.0.0": ("Standby", 0, 0), "1.1.0": ("Stable", 0, 0)}, {"1.1.0": 100}),
    ("what is withdrawn takes nothing, though its pods still run", {"1.0.0": ("Withdrawn", 4, 4)}, {}),
]


@pytest.mark.parametrize(("sentence", "pods", "split"), ROWS, ids=[row[0] for row in ROWS])
def test_the_split(snapshot: Callable[..., Observed], sentence: str, pods: dict[str, Pods], split: dict[str, int]) -> None:
    assert weights(observed(snapshot, pods).releases) == {name_of(version): weight for version, weight in split.items()}, sentence


@pytest.mark.parametrize(("available", "share"), [(0, 0), (1, 20), (2, 20), (4, 20)])
def test_a_canary_in_its_first_step_takes_what_one_of_four_pods_carries(
    snapshot: Callable[..., Observed], available: int, share: int
) -> None:
    found = weights(observed(snapshot, {"1.0.0": ("Stable", 4, 4), "1.1.0": ("Canary", 4, available)}).releases)
    assert found[name_of("1.1.0")] == share


@pytest.mark.parametrize(("available", "share"), [(1, 25), (2, 50), (3, 75), (4, 80)])
def test_in_a_later_step_it_takes_no_more_than_its_pods_carry(snapshot: Callable[..., Observed], available: int, share: int) -> None:
    found = weights(observed(snapshot, {"1.0.0": ("Stable", 4, 4), "1.1.0": ("Canary", 4, available)}, step=1).releases)
    assert found == {name_of("1.0.0"): 100 - share, name_of("1.1.0"): share}


def observed(snapshot: Callable[..., Observed], pods: dict[str, Pods], *, step: int = 0) -> Observed:
    """Releases of four replicas in these states, all of them in the route."""
    manifests = [
        a_release(version, rollout=STEPS, serving={"replicas": 4}, status={"rollout": {"state": state, "step": step}})
        for version, (state, _, _) in pods.items()
    ]
    children: list[dict[str, Any]] = []
    for release in snapshot(*manifests).releases:
        _, ready, available = pods[release.spec.model.version]
        deployment = objects.deployment(release, SETTINGS)
        children.append({**deployment, "status": {"readyReplicas": ready, "availableReplicas": available}})
    first = snapshot(*manifests, *children)
    split = [(release, route.IDLE) for release in first.releases]
    return snapshot(*manifests, *children, route.route(first, split, (), SETTINGS))
