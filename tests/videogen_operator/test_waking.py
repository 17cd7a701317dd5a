"""What a change wakes: of an object nothing that reads other parts of it; by nodes at once if they seldom change, and more and more seldom
if they flap.
"""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.kinds.fine_tune_cycle import FINE_TUNE_CYCLE as CYCLES
from videogen_operator.plan import Key
from videogen_operator.waking import CALM_SECONDS, LONGEST_SECONDS, Gathering, Waking
from videogen_testing.releases import NAMESPACE, SERVICE, a_node, a_release, name_of

Told = list[tuple[float, str]]


def scene(loop: Any, story: Callable[[Callable[[str], None]], Any]) -> Told:
    told: Told = []
    gathered = Gathering(lambda item: told.append((round(loop.time(), 1), item["metadata"]["name"])))
    loop.run_until_complete(story(lambda name: gathered.told(a_node(name))))
    return told


def test_a_node_that_flaps_each_second_is_told_ever_more_seldom(virtual_loop: Any) -> None:
    async def story(changes: Callable[[str], None]) -> None:
        for _ in range(300):
            changes("node-1")
            await asyncio.sleep(1)

    told = scene(virtual_loop, story)
    times = [time for time, _ in told]
    assert times[0] == 1.0
    pauses = [later - before for before, later in pairwise(times)]
    assert pauses[:4] == sorted(pauses[:4])
    assert LONGEST_SECONDS <= pauses[-1] <= LONGEST_SECONDS + 1
    assert len(told) <= 14, "of 300 changes"


def test_what_changed_last_is_told_in_the_end(virtual_loop: Any) -> None:
    async def story(changes: Callable[[str], None]) -> None:
        for _ in range(40):
            changes("node-1")
            await asyncio.sleep(1)
        await asyncio.sleep(LONGEST_SECONDS + 2)

    assert scene(virtual_loop, story)[-1][0] > 40


def test_beside_a_node_that_flaps_a_new_one_is_told_at_once(virtual_loop: Any) -> None:
    async def story(changes: Callable[[str], None]) -> None:
        for second in range(100):
            changes("node-1")
            if second == 70:
                changes("node-2")
            await asyncio.sleep(1)

    assert any(name == "node-2" and 71 <= time <= 72 for time, name in scene(virtual_loop, story))


def test_a_node_that_was_calm_for_a_while_is_told_at_once_again(virtual_loop: Any) -> None:
    async def story(changes: Callable[[str], None]) -> None:
        for _ in range(100):
            changes("node-1")
            await asyncio.sleep(1)
        await asyncio.sleep(LONGEST_SECONDS + CALM_SECONDS + 5)
        changes("node-1")
        await asyncio.sleep(2)

    told = scene(virtual_loop, story)
    assert told[-1][0] == 100 + LONGEST_SECONDS + CALM_SECONDS + 5 + 1


def release(version: int, state: str = "Stable", checks: int = 0, uid: str = "1") -> dict[str, Any]:
    metadata = {"name": name_of("1.0.0"), "namespace": NAMESPACE, "uid": uid, "resourceVersion": str(version)}
    return a_release("1.0.0") | {"metadata": metadata, "status": {"rollout": {"state": state}, "checks": checks}}


def test_a_cycle_is_woken_by_what_it_reads_of_a_release_and_by_nothing_else() -> None:
    world, woken = ObjectWorld(CYCLES.resources, CYCLES.indexes), list[Key]()
    spec = {"model": {"family": "VideoFusion", "type": "videofusion"}, "startFrom": {"service": SERVICE}}
    world.store(
        {
            "apiVersion": "videogen.pib.gov.in/v1alpha1",
            "kind": "FineTuneCycle",
            "metadata": {"name": "weekly", "namespace": NAMESPACE, "uid": "2", "resourceVersion": "1"},
            "spec": spec,
        }
    )
    told = Waking((CYCLES,), world, woken.append, lambda: None).told

    def changes(item: dict[str, Any]) -> int:
        before = len(woken)
        world.store(item)
        told(item)
        return len(woken) - before

    assert changes(release(1)) == 1, "it is new"
    assert changes(release(2, checks=1)) == 0
    assert changes(release(3, state="RolledBack")) == 1
    assert changes(release(4, state="RolledBack", checks=2)) == 0
    world.store(release(5))
    told(release(1))
    assert len(woken) == 3, "a list that is older than the watch"
    assert changes(release(6, state="RolledBack")) == 1, "and that is not taken for what is known"
    world.remove(release(7))
    told(release(7))
    assert len(woken) == 5, "it is gone"
    assert changes(release(8, uid="another")) == 1, "another one of that name"
