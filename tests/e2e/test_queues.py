"""Two runs in a queue of the real Kueue that has room for one: the second says for what it waits, and trains after the first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster
from videogen_testing.queued_runs import CALM, queued, queues, says
from videogen_testing.stories import curate, ended, phase


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, installation: Installation, clips: Path) -> Iterator[str]:
    with queues(cluster, installation, clips) as name:
        yield name


def test_what_finds_no_room_waits_and_begins_when_there_is_some(cluster: Cluster, namespace: str) -> None:
    first, second = queued(namespace, "first", CALM, 40, "1.0.0"), queued(namespace, "second", CALM, 4, "1.0.1")
    first["spec"]["phases"].insert(0, curate())
    cluster.apply(first)
    cluster.wait("the first one to train", lambda: phase(cluster, namespace, "first", "train").get("attempt") == 1, 600)
    cluster.apply(second)
    says(cluster, namespace, "second", "Queued", "insufficient unused quota for cpu")
    assert phase(cluster, namespace, "second", "train")["queuedTime"]
    assert ended(cluster, namespace, "first")["status"] == "True"
    assert ended(cluster, namespace, "second")["status"] == "True"
    waited = phase(cluster, namespace, "second", "train")
    assert (waited["attempt"], waited.get("evictions", 0), waited.get("queuedTime")) == (1, 0, None), waited
