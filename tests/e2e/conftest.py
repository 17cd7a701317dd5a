"""The installed product on a real cluster with real images; a namespace with Pod Security `restricted` for each story."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from videogen_demo import footage, install
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster
from videogen_testing.storage_reader import READER, Storage, reader
from videogen_testing.stories import CLAIM, claim, namespace_manifest

CLIPS = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(7200))  # for what hangs; the first one also builds cluster and images


@pytest.fixture(scope="session")
def installation() -> Installation:
    """Made here, so that all tests but these go on beside it."""
    return install.ensure()


@pytest.fixture(scope="session")
def cluster(installation: Installation) -> Cluster:
    return installation.cluster


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw/real and raw/synthetic, as a user would have it."""
    folder = tmp_path_factory.mktemp("footage")
    footage.collect(folder, CLIPS)
    return folder


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, installation: Installation, clips: Path) -> Iterator[str]:
    """A fresh namespace whose claim `models` holds the footage; deleted with all that is in it."""
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    cluster.apply(namespace_manifest(name), claim(name))
    footage.upload(cluster, name, "models", clips, installation.images["trainer"])
    yield name
    cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def claim_name() -> str:
    """Of the namespace's claim."""
    return CLAIM


@pytest.fixture(scope="module")
def storage(cluster: Cluster, installation: Installation, namespace: str, claim_name: str) -> Storage:
    """What lies in the namespace's claim."""
    cluster.apply(reader(namespace, installation.images["trainer"], claim_name))
    cluster("wait", "--for=condition=Ready", f"pod/{READER}", "-n", namespace, "--timeout=300s")
    return Storage(cluster, namespace)
