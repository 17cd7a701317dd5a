"""The cluster's network namespace and its link to the machine.

    machine                         namespace videogenN
    videogenN-host 10.244.0.254 --- eth0 10.244.0.1 (API server, DNS, Prometheus), .2 ... one address per node
      routes: pods and services       ptp links to the pods 10.244.<node>.0/24, kube-proxy's nftables

All filtering, forwarding and address translation happens in there, so that nothing on the machine (a firewall, Docker,
another checkout's cluster) is changed or can interfere, and removing the namespace removes it all.
"""

import json
from pathlib import Path
from typing import Any

from localcluster.commands import run, succeeds
from localcluster.layout import Layout

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    # Replies of a pod may take another link than the kernel would choose for the request.
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    # A thousand pods' neighbours, and many short connections of load tests.
    "net.ipv4.ip_local_port_range": "10000 65000",
}


def exists(layout: Layout) -> bool:
    """Whether the namespace and its link are there."""
    return Path("/run/netns", layout.netns).exists() and Path("/sys/class/net", layout.host_link).exists()


def up(layout: Layout) -> None:
    """Makes the namespace, the link and the machine's routes into it."""
    if exists(layout):
        return
    down(layout)
    run(["ip", "netns", "add", layout.netns])
    run(["ip", "link", "add", layout.host_link, "type", "veth", "peer", "name", "eth0", "netns", layout.netns])
    run(["ip", "addr", "add", f"{layout.host_address}/24", "dev", layout.host_link])
    run(["ip", "link", "set", layout.host_link, "up"])
    _inside(layout, "addr", "add", f"{layout.address}/24", "dev", "eth0")
    _inside(layout, "link", "set", "lo", "up")
    _inside(layout, "link", "set", "eth0", "up")
    # The machine as the way out: a pod can answer it, and the API server finds its own address by a default route.
    _inside(layout, "route", "add", "default", "via", layout.host_address)
    for cidr in (layout.pod_cidr, layout.service_cidr):
        run(["ip", "route", "replace", cidr, "via", layout.address, "dev", layout.host_link])
    for key, value in SYSCTLS.items():
        run(["nsenter", f"--net=/run/netns/{layout.netns}", "sysctl", "-q", "-w", f"{key}={value}"])


def add_node(layout: Layout, number: int, address: str) -> None:
    """Gives the namespace a further node's own address, and its pods a way to reach themselves through a Service."""
    _inside(layout, "addr", "replace", f"{address}/24", "dev", "eth0")
    _nft(layout, hairpin_rules(hairpin_table(number), f"{layout.pod_prefix}.{number}"))


def remove_node(layout: Layout, number: int, address: str) -> None:
    """Takes both away again."""
    succeeds(["ip", "-n", layout.netns, "addr", "del", f"{address}/24", "dev", "eth0"])
    succeeds(["nsenter", f"--net=/run/netns/{layout.netns}", "nft", "delete", "table", "ip", hairpin_table(number)])


def hairpin_table(number: int) -> str:
    """A table of our own for each added node."""
    return f"hairpin-node-{number}"


def hairpin_rules(table: str, prefix: str) -> str:
    """What kube-proxy does for its own node only: a pod that a Service sends back to itself must see another sender.

    There is one kube-proxy for all nodes, and it belongs to the first. nftables cannot compare two addresses of a
    packet, but it can look up the pair.
    """
    pairs = ", ".join(f"{prefix}.{host} . {prefix}.{host}" for host in range(2, 255))
    return f"""table ip {table}
delete table ip {table}
table ip {table} {{
    set pairs {{
        type ipv4_addr . ipv4_addr
        elements = {{ {pairs} }}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr . ip daddr @pairs masquerade
    }}
}}
"""


def _nft(layout: Layout, rules: str) -> None:
    run(["nsenter", f"--net=/run/netns/{layout.netns}", "nft", "-f", "-"], stdin=rules)


def down(layout: Layout) -> None:
    """Removes everything; the routes go with the link."""
    if Path("/sys/class/net", layout.host_link).exists():
        run(["ip", "link", "delete", layout.host_link])
    if Path("/run/netns", layout.netns).exists():
        run(["ip", "netns", "delete", layout.netns])


def _inside(layout: Layout, *words: str) -> None:
    run(["ip", "-n", layout.netns, *words])


def routed(prefixes: list[str], own_link: str) -> bool:
    """Whether the machine already sends one of these 10.x prefixes somewhere else."""
    table: list[dict[str, Any]] = json.loads(run(["ip", "-j", "route", "show"]))
    return any(
        str(route.get("dst", "")).startswith(tuple(f"{prefix}." for prefix in prefixes)) for route in table if route.get("dev") != own_link
    )
