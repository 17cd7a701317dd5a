"""kopf's requests are counted by the back-offs that it asks for."""

import asyncio
from itertools import islice

import pytest
from prometheus_client import REGISTRY

from videogen_operator.handlers import Patience
from videogen_operator.resources import PODS


def counted(resource: str) -> list[float]:
    """Requests that were begun, and attempts that have failed."""
    labels = [{"resource": resource, "result": result} for result in ("Begun", "Failed")]
    return [REGISTRY.get_sample_value("videogen_watch_requests_total", one) or 0.0 for one in labels]


@pytest.mark.parametrize(
    ("task", "resource"),
    [
        ("watcher for pods.v1@films", "pods"),
        ("watcher for pods.v1@None", "pods"),
        ("watcher for strange.v1@films", "others"),
        ("resource observer", "others"),
    ],
)
async def test_a_request_is_begun_once_and_fails_as_often_as_another_back_off_is_asked_for(task: str, resource: str) -> None:
    async def request(failures: int) -> list[float]:
        return list(islice(Patience([PODS]), 1 + failures))

    begun, failed = counted(resource)
    delays = [await asyncio.create_task(request(failures), name=task) for failures in (0, 6)]
    assert counted(resource) == [begun + 2, failed + 6]
    assert [round(delay // 1) for delay in delays[1]][:2] == [1, 2]
    assert all(16 <= delay <= 20 for delay in delays[1][4:])
