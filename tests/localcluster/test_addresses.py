from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from localcluster import links, network, node, preflight, recovery
from localcluster.faults import Fault
from localcluster.layout import MAX_INDEX, Layout

REPO = Path("/src/checkout")
ALL = [Layout(repo=REPO, index=index) for index in range(MAX_INDEX)]

MOUNTINFO = """\
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 254:0 /var/lib/containers/storage/overlay /var/lib/containers/storage/overlay rw - ext4 /dev/vda rw
31 24 0:50 / /run rw - tmpfs tmpfs rw
40 24 0:60 / /src/checkout/.localcluster/nodes/node-1/kubelet/pods/a/volumes/token rw - tmpfs tmpfs rw
41 40 0:61 / /src/checkout/.localcluster/nodes/node-1/kubelet/pods/a/volumes/token/in\\040side rw - tmpfs tmpfs rw
42 24 0:62 / /src/checkout/.localcluster-other rw - tmpfs tmpfs rw
"""


def test_the_clusters_of_two_checkouts_share_no_address_and_no_name() -> None:
    for kind in ("pod_cidr", "service_cidr"):
        networks = [ip_network(getattr(layout, kind)) for layout in ALL]
        assert not any(one.overlaps(other) for one in networks for other in networks if one is not other)
    for kind in ("netns", "host_link", "cgroup", "run"):
        assert len({getattr(layout, kind) for layout in ALL}) == MAX_INDEX


def test_pods_and_services_of_all_clusters_are_apart() -> None:
    assert not any(ip_network(one.pod_cidr).overlaps(ip_network(other.service_cidr)) for one in ALL for other in ALL)


def test_a_links_name_fits_the_kernel() -> None:
    assert all(len(layout.host_link) <= 15 for layout in ALL)


def test_nodes_have_addresses_and_pod_networks_of_their_own() -> None:
    layout = ALL[3]
    nodes = [node.named(layout, f"node-{number}") for number in range(1, node.MAX_NODES + 1)]
    pods = [ip_network(each.pod_cidr) for each in nodes]
    assert len({each.address for each in nodes}) == len(nodes)
    assert all(cidr.subnet_of(ip_network(layout.pod_cidr)) for cidr in pods)  # type: ignore[arg-type]
    assert not any(ip_address(each.address) in cidr for each in nodes for cidr in pods)
    assert ip_address(layout.host_address) not in [ip_address(each.address) for each in nodes]
    assert nodes[0].address == layout.address


@pytest.mark.parametrize("name", ["node-0", "node-17", "node-01", "node", "worker-1", "node-2x"])
def test_a_wrong_node_name_is_refused(name: str) -> None:
    with pytest.raises(Fault, match="is no node name"):
        node.named(ALL[0], name)


def test_sockets_have_short_paths_however_deep_the_checkout_lies() -> None:
    each = node.named(Layout(repo=Path("/" + "deep/" * 40), index=MAX_INDEX - 1), f"node-{node.MAX_NODES}")
    for socket in (each.containerd_socket, each.kubelet_root / "device-plugins/kubelet.sock"):
        assert len(str(socket)) <= 107


def test_go_is_not_asked_for_when_everything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.build, "missing", lambda *_: [])
    monkeypatch.setattr(preflight.shutil, "which", lambda _: None)
    preflight.check_go(ALL[0])


def test_missing_go_is_told_with_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.build, "missing", lambda _, modules: [part for part in ("etcd", "helm") if part in modules])
    monkeypatch.setattr(preflight.shutil, "which", lambda _: None)
    with pytest.raises(Fault, match=r"it has to build helm$"):
        preflight.check_go(ALL[0], ["helm"])


def test_only_mounts_inside_are_taken_away_and_the_innermost_first() -> None:
    pods = "/src/checkout/.localcluster/nodes/node-1/kubelet/pods/a/volumes/token"
    assert recovery.mounts_below(REPO / ".localcluster", MOUNTINFO) == [f"{pods}/in side", pods]


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/var/lib/containers/storage/overlay/x/diff", ("254:0", "/var/lib/containers/storage/overlay/x/diff")),
        ("/var/lib/containers/storage/overlay", ("254:0", "/var/lib/containers/storage/overlay")),
        ("/src/checkout/.localcluster/nodes", ("254:0", "/src/checkout/.localcluster/nodes")),
        ("/run/user/0", ("0:50", "/user/0")),
        ("/runner", ("254:0", "/runner")),
        ("/", ("254:0", "/")),
    ],
)
def test_a_path_is_found_in_its_filesystem(path: str, where: tuple[str, str]) -> None:
    assert links.within(links.mounts(MOUNTINFO), Path(path)) == where


def test_a_pod_that_reaches_itself_is_found_in_the_set_of_pairs() -> None:
    rules = network.hairpin_rules("hairpin-node-2", "10.244.2")
    assert "10.244.2.2 . 10.244.2.2" in rules
    assert "10.244.2.254 . 10.244.2.254" in rules
    assert "10.244.2.255" not in rules
