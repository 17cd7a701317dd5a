"""How a Service is reached from this machine: at an address that is surely its own, if there is one. (Port-forwards: tests/e2e.)"""

from __future__ import annotations

import socket
from typing import Any

import pytest

from videogen_demo import reach

ROWS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an address": ({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}, ["192.0.2.1"]),
    "a name": ({"loadBalancer": {"ingress": [{"hostname": "lb.example.org"}]}}, ["lb.example.org"]),
    "several": ({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "hostname": "b"}]}}, ["192.0.2.1", "192.0.2.2"]),
    "one that is still to come": ({"loadBalancer": {}}, []),
    "none": ({}, []),
}


@pytest.mark.parametrize("status, wanted", ROWS.values(), ids=ROWS.keys())
def test_what_a_load_balancer_has(status: dict[str, Any], wanted: list[str]) -> None:
    assert reach.balancers({"spec": {}, "status": status}) == wanted


def test_a_port_is_open_only_where_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert reach.accepts("127.0.0.1", port)
    assert not reach.accepts("127.0.0.1", port)
