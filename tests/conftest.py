"""How tests share a machine: those with a cluster first and beside all others, for they wait more than they compute."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("on any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("on any machine")
CLUSTERS = ("tests/e2e", "tests/cluster")  # each folder has one cluster, and so one worker


class OneWorkerForACluster(LoadScopeScheduling):  # type: ignore[misc]
    """`--dist loadscope`: a module's tests stay together, and so do all tests of a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in CLUSTERS if nodeid.startswith(f"{folder}/")), nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneWorkerForACluster | None:
    return OneWorkerForACluster(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The folders with a cluster begin: they take longest, and a worker that begins late would be waited for."""
    first = [config.rootpath / folder for folder in CLUSTERS]
    items.sort(key=lambda item: not any(folder in Path(item.path).parents for folder in first))
