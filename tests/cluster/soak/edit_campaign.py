"""A thousand edits by chance in any state, chained, for each seed: about half an hour each. `make soak` runs it."""

import uuid
from pathlib import Path

import pytest

from videogen_testing.any_edit import live
from videogen_testing.control_plane import ControlPlane
from videogen_testing.other_controllers import client
from videogen_testing.upstream_crds import gateway_definitions, install

OPERATIONS, SETTLE_EVERY = 1000, 20
SEEDS = (1, 2, 3)


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_thousand_edits_leave_nothing_stuck_lost_or_twice(plane: ControlPlane, tmp_path: Path, seed: int) -> None:
    install(plane.api, gateway_definitions())
    name = f"edits-{uuid.uuid4().hex[:8]}"
    async with client(plane) as api:
        done = await live(plane, api, tmp_path, name, seed=seed, operations=OPERATIONS, settle_every=SETTLE_EVERY)
    print(f"seed {seed}: {done}")
    assert done.counts["settled"] == OPERATIONS / SETTLE_EVERY
    assert 0 < done.counts["refused"] < OPERATIONS / 2
