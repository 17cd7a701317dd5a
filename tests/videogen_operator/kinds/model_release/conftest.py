"""Snapshots from a world of fixed objects."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from videogen_operator.kinds.model_release.observed import Observed, Release, observe
from videogen_operator.plan import Key
from videogen_testing.releases import NAMESPACE, SERVICE, Objects, a_claim, a_gateway

Snapshot = Callable[..., Observed]


@pytest.fixture
def snapshot() -> Snapshot:
    """`snapshot(*objects)`: the service as observed, with a claim and a gateway."""

    def of(*items: Mapping[str, Any]) -> Observed:
        observed = observe(Objects(a_claim(), a_gateway(), *items), Key("ModelRelease", NAMESPACE, SERVICE))
        assert observed is not None
        return observed

    return of


@pytest.fixture
def one(snapshot: Snapshot) -> Callable[..., Release]:
    """`one(release, *objects)`: the only release of a service, as observed."""

    def of(*items: Mapping[str, Any]) -> Release:
        (release,) = snapshot(*items).releases
        return release

    return of
