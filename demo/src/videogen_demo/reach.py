"""Getting at a Service from this machine: by an address that is routed here, else through `kubectl port-forward`."""

from __future__ import annotations

import atexit
import re
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from videogen_demo.kubectl import Cluster, CommandError, Manifest

CONNECT_SECONDS = 2.0
FORWARD_SECONDS = 30.0


def address(cluster: Cluster, service: Manifest, port: str = "") -> str:
    """`host:port` of a Service's port (the first, unless named), reachable from here until this process ends."""
    chosen = next(one for one in service["spec"]["ports"] if not port or one.get("name") == port)
    if service["spec"].get("clusterIP") not in (None, "", "None") and routed(cluster):
        return f"{service['spec']['clusterIP']}:{chosen['port']}"
    for host in balancers(service):
        if accepts(host, chosen["port"]):
            return f"{host}:{chosen['port']}"
    return forward(cluster, service, chosen["port"])


def routed(cluster: Cluster) -> bool:
    """Whether addresses of Services are routed from here.

    An open port proves nothing, for a network's proxy may open any. The cluster's own API server has such an address
    too, and only it has a certificate of the cluster's own authority.
    """
    service, authority = cluster.get("service", "kubernetes", "default"), cluster.get("configmap", "kube-root-ca.crt", "default")
    if not service or not authority:
        return False
    context = ssl.create_default_context(cadata=authority["data"]["ca.crt"])
    try:
        with socket.create_connection((service["spec"]["clusterIP"], 443), timeout=CONNECT_SECONDS) as plain:
            context.wrap_socket(plain, server_hostname="kubernetes.default.svc").close()
    except OSError:
        return False
    return True


def balancers(service: Manifest) -> list[str]:
    """Addresses and names of a Service's load balancer."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return [entry.get("ip") or entry["hostname"] for entry in ingress]


def accepts(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def forward(cluster: Cluster, service: Manifest, port: int) -> str:
    """`127.0.0.1:port` of a `kubectl port-forward`, which lives as long as this process."""
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    command = [cluster.kubectl, *cluster.flags, "port-forward", "--pod-running-timeout=20s", "-n", namespace, f"service/{name}", f":{port}"]
    # Not a pipe, which would fill: kubectl says a line for each connection.
    with tempfile.NamedTemporaryFile("w", prefix="port-forward-") as said:
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        atexit.register(end, child)
        until = time.monotonic() + FORWARD_SECONDS
        while time.monotonic() < until and child.poll() is None:
            if found := re.search(r"Forwarding from (127\.0\.0\.1:\d+) ->", Path(said.name).read_text()):
                return found[1]
            time.sleep(0.1)
        end(child)
        words = Path(said.name).read_text().strip()
    raise CommandError(f"service {namespace}/{name} cannot be reached from here, neither by an address nor by port-forward: {words}")


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child, if it has not ended."""
    if child.poll() is None:
        child.terminate()
        child.wait(timeout=10)
