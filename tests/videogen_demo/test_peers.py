"""Whom the NetworkPolicies let in on the local cluster, where Prometheus is no pod."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from localcluster import node
from localcluster.layout import Layout
from videogen_demo import install

LAYOUT = Layout(repo=Path("/src/checkout"), index=3)


def test_monitoring_comes_from_each_node_and_the_machine_and_no_pod_has_their_addresses() -> None:
    admitted = [ipaddress.ip_network(peer["ipBlock"]["cidr"]) for peer in install.peers_at(LAYOUT.address)]
    ranges = [ipaddress.ip_network(node.Node(layout=LAYOUT, number=number).pod_cidr) for number in range(1, node.MAX_NODES + 1)]
    gateways = {ipaddress.ip_network(f"{pods[1]}/32") for pods in ranges}  # host-local keeps the first address for the node
    others = {ipaddress.ip_network(f"{address}/32") for address in (LAYOUT.address, LAYOUT.host_address)}
    assert set(admitted) == gateways | others
