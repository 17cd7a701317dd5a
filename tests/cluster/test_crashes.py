"""From a cycle over its run to a stable release with the operator killed at each of its writes: the end is the same as without.

One story without faults tells which writes there are. Then each of them is hit once by each fault, several faults in a
story, far enough apart that the operator has come to its senses in between; `soak/crash_campaign.py` has them one by
one. What counts is the end state of all objects, and how often each was created and deleted (Sieve, OSDI 2022).
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
import pytest_asyncio

from videogen_testing.control_plane import ControlPlane
from videogen_testing.crash_story import Outcome, assert_same_end, common_points, tell
from videogen_testing.fault_proxy import Point, WriteFault
from videogen_testing.other_controllers import client
from videogen_testing.upstream_crds import gateway_definitions, install

pytestmark = [pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

STORIES = 4  # for each fault; a story has every fourth write
PARALLEL = 4
REFUSALS = (409, 429, 500, 503, 403)
FAULTS = {
    "the operator is killed just before": lambda number, point: WriteFault(point, "before", "kill"),
    "the operator is killed just after": lambda number, point: WriteFault(point, "after", "kill"),
    "the answer is lost after": lambda number, point: WriteFault(point, "after", "lose"),
    "an error answers": lambda number, point: WriteFault(point, "before", REFUSALS[number % len(REFUSALS)]),
}
Outcomes = Mapping[tuple[str, str], "asyncio.Task[list[Outcome]]"]
NAMES = [f"story {number}" for number in range(STORIES)]
REST = "what an earlier fault in a story had made needless"  # a status between two states is skipped after a restart
NO_FAULT = ("no fault", "")


def chosen(stories: Sequence[Outcome]) -> list[Point]:
    """Every write, but of those in which the cycle repeats what its run says the first and the last two; `soak/crash_campaign.py` has all."""
    points = common_points(stories)
    told = [point for point in points if point.resource == "finetunecycles/status"]
    return [point for point in points if point not in told[2:-2]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def outcomes(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outcomes]:
    """All stories, already running."""
    install(plane.api, gateway_definitions())
    folder, places = tmp_path_factory.mktemp("crashes"), asyncio.Semaphore(PARALLEL)
    async with client(plane) as api:

        async def told(*stories: Sequence[WriteFault]) -> list[Outcome]:
            return list(await asyncio.gather(*map(one, stories)))

        async def one(faults: Sequence[WriteFault]) -> Outcome:
            async with places:
                return await tell(plane, api, folder, f"crash-{uuid.uuid4().hex[:8]}", faults)

        async def rest(name: str, faults: Sequence[WriteFault]) -> list[Outcome]:
            fired = [fault for story in NAMES for outcome in await tasks[name, story] for fault in outcome.fired]
            return await told(*([fault] for fault in faults if fault not in fired))

        tasks = {NO_FAULT: asyncio.create_task(told([], []))}
        points = chosen(await tasks[NO_FAULT])
        planned = {name: [fault(number, point) for number, point in enumerate(points)] for name, fault in FAULTS.items()}
        for number, story in enumerate(NAMES):
            tasks |= {(name, story): asyncio.create_task(told(faults[number::STORIES])) for name, faults in planned.items()}
        tasks |= {(name, REST): asyncio.create_task(rest(name, faults)) for name, faults in planned.items()}
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def test_two_stories_without_faults_are_the_same(outcomes: Outcomes) -> None:
    one, other = await outcomes[NO_FAULT]
    assert_same_end(one, other)
    assert len(common_points([one, other])) >= 50, "most writes are made in each story"
    assert one.exits == other.exits == []
    assert one.events == other.events


async def test_every_kind_of_write_is_among_them(outcomes: Outcomes) -> None:
    points = common_points(await outcomes[NO_FAULT])
    resources = {point.resource for point in points}
    assert resources >= {"configmaps", "pytorchjobs", "trainingruns/status", "modelreleases", "modelreleases/status", "events", "leases"}
    assert resources >= {"networkpolicies", "deployments", "services", "poddisruptionbudgets", "httproutes"}
    assert {"trainingruns", "finetunecycles/status"} <= resources, "of a cycle"
    assert ("DELETE", "trainingruns") in {(point.verb, point.resource) for point in points}, "by its history limit"


@pytest.mark.parametrize("story", [*NAMES, REST])
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_end_is_the_same_when(outcomes: Outcomes, fault: str, story: str) -> None:
    reference = (await outcomes[NO_FAULT])[0]
    for outcome in await outcomes[fault, story]:
        assert_same_end(reference, outcome)
        kills = sum(one.action == "kill" for one in outcome.fired)
        assert bool(outcome.exits) == bool(kills)
        assert len(outcome.exits) <= kills, "two writes in flight may be hit in one life, but no life ends by itself"


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_write_was_hit_by(outcomes: Outcomes, fault: str) -> None:
    points = chosen(await outcomes[NO_FAULT])
    hit: set[Point] = {one.point for story in [*NAMES, REST] for outcome in await outcomes[fault, story] for one in outcome.fired}
    assert hit == set(points), f"{sorted(set(points) - hit)} were never hit"
