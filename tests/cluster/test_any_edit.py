"""A short life of edits by chance; `soak/edit_campaign.py` has the long one."""

import uuid
from pathlib import Path

import pytest

from videogen_testing.any_edit import live
from videogen_testing.control_plane import ControlPlane
from videogen_testing.other_controllers import client
from videogen_testing.upstream_crds import gateway_definitions, install

OPERATIONS = 60


@pytest.mark.timeout(1800)
async def test_sixty_edits_leave_nothing_stuck_lost_or_twice(plane: ControlPlane, tmp_path: Path) -> None:
    install(plane.api, gateway_definitions())
    async with client(plane) as api:
        done = await live(plane, api, tmp_path, f"edits-{uuid.uuid4().hex[:8]}", seed=1, operations=OPERATIONS, settle_every=20)
    print(done)
    assert done.counts["settled"] == OPERATIONS / 20
    assert 0 < done.counts["refused"] < OPERATIONS / 2
