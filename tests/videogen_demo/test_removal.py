"""Which releases are withdrawn before they are deleted: those that the chart's policy keeps."""

from typing import Any

import pytest

from videogen_demo.removal import KEPT, is_kept
from videogen_operator.kinds.model_release.states import SERVING, State
from videogen_testing.releases import a_release

ROWS: dict[str, tuple[dict[str, Any], bool]] = {
    "one that nobody has looked at": ({}, False),
    "one that waits": ({"rollout": {"state": "Queued"}, "traffic": {"weightPercent": 0}}, False),
    "the stable one": ({"rollout": {"state": "Stable"}, "traffic": {"weightPercent": 100}}, True),
    "the standby": ({"rollout": {"state": "Standby"}, "traffic": {"weightPercent": 0}}, True),
    "one whose traffic is being taken back": ({"rollout": {"state": "Withdrawn"}, "traffic": {"weightPercent": 10}}, True),
    "one that was withdrawn": ({"rollout": {"state": "Withdrawn"}, "traffic": {"weightPercent": 0}}, False),
}


@pytest.mark.parametrize(("status", "kept"), ROWS.values(), ids=ROWS.keys())
def test_is_kept(status: dict[str, Any], kept: bool) -> None:
    assert is_kept(a_release(status=status or None)) is kept


def test_the_states_are_the_operators() -> None:
    assert {state.value for state in SERVING | {State.STANDBY}} == KEPT
