"""Every write hit by every fault, one fault a story: about 800 stories, some hours. `make soak` runs it."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from videogen_testing.control_plane import ControlPlane
from videogen_testing.crash_story import Outcome, assert_same_end, common_points, tell
from videogen_testing.fault_proxy import WriteFault
from videogen_testing.other_controllers import Client, client
from videogen_testing.upstream_crds import gateway_definitions, install

pytestmark = [pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

POINTS = 88  # more than there are; a number beyond the last write hits nothing and says so
FAULTS: dict[str, tuple[str, str | int]] = {
    "killed before": ("before", "kill"),
    "killed after": ("after", "kill"),
    "answer lost": ("after", "lose"),
    "never answered": ("before", "hold"),
} | {f"answered with {code}": ("before", code) for code in (403, 409, 422, 429, 500, 503, 504)}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def api(plane: ControlPlane) -> AsyncIterator[Client]:
    install(plane.api, gateway_definitions())
    async with client(plane) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def references(plane: ControlPlane, api: Client, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    folder = tmp_path_factory.mktemp("references")
    return [await tell(plane, api, folder, f"soak-{uuid.uuid4().hex[:8]}") for _ in range(2)]


@pytest.mark.parametrize("number", range(POINTS))
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_end_is_the_same_when(
    plane: ControlPlane, api: Client, references: list[Outcome], tmp_path: Path, fault: str, number: int
) -> None:
    points = common_points(references)
    if number >= len(points):
        assert len(points) >= 50, "the story has lost its writes"
        return
    when, action = FAULTS[fault]
    planned = WriteFault(points[number], when, action)  # type: ignore[arg-type]
    outcome = await tell(plane, api, tmp_path, f"soak-{uuid.uuid4().hex[:8]}", [planned])
    assert_same_end(references[0], outcome)
    assert outcome.fired == [planned]
