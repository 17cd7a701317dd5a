"""Which cluster KUBECONFIG means, and how kind is given images. (Building and loading: tests/e2e.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from videogen_demo import delivery, install
from videogen_demo.kubectl import Cluster

OWN = str(install.OWN_KUBECONFIG)
ROWS = {"": True, OWN: True, "/some/other/kubeconfig": False, f"{OWN}:/some/other": False, f"/some/other:{OWN}": False}


@pytest.mark.parametrize(("value", "local"), ROWS.items())
def test_only_its_own_file_means_the_local_cluster(value: str, local: bool) -> None:
    assert install.means_local_cluster(value) == local


def test_the_local_clusters_file_is_known_by_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(OWN)
    assert install.means_local_cluster(str(tmp_path / "link"))


def test_kubectl_is_told_of_one_file_and_reads_a_list_by_itself() -> None:
    assert Cluster(Path("/one")).flags == ["--kubeconfig", "/one"]
    assert Cluster(None).flags == []


@pytest.mark.parametrize(
    ("name", "command"),
    [("kind-kind", "kind load docker-image --name kind"), ("kind-two words", "kind load docker-image --name 'two words'"), ("gke", "")],
)
def test_kind_is_known_by_its_context(name: str, command: str) -> None:
    assert delivery.kind_loader(name) == command
