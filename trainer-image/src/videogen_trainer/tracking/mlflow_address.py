"""Where a run may be sent by the address of its MLflow server, and by what that server answers: to a tracking server and nowhere else.

Whoever may create runs chooses the address, and the pod has what they may not have: a place in the cluster's network, and the namespace's
credentials. Names are resolved here and once more by the client, and may change between: what the network must not allow at all is the
affair of an egress policy.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK_IS_REFUSED = True  # tests have servers there
_METADATA = frozenset(  # of clouds whose services for instances have no link-local address
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
_METADATA_NAMES = ("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address


class Refused(ValueError):
    """Nothing may be sent there, now or later."""


def check_server(uri: str) -> None:
    """Raises Refused for a server that nothing may be sent to; OSError if it has no address."""
    parts = urlsplit(uri)
    host = (parts.hostname or "").rstrip(".").lower()
    if parts.scheme != "https" or not host:
        raise Refused(f"its address {uri!r} is no https address of a server")
    if host in _METADATA_NAMES:
        raise Refused(f"{host} is a metadata service; name a tracking server")
    found = {ipaddress.ip_address(answer[4][0]) for answer in socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)}
    for address in found:
        if why := _problem(address):
            raise Refused(f"{host} is {address}, {why}; name a tracking server")


def _problem(address: Address) -> str:
    """Why nothing may be sent to an address, in words; nothing if it may."""
    inner = _inner(address)
    if inner.is_loopback and LOOPBACK_IS_REFUSED:
        return "which is the pod itself"
    if inner.is_link_local or inner in _METADATA:
        return "where clouds have their metadata"
    if inner.is_unspecified or inner.is_multicast:
        return "which is no address of a server"
    return ""


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


def check_artifacts(artifacts: str, uri: str) -> None:
    """Raises Refused unless the server takes a run's files itself: its answer may name a file of the pod, or any other host."""
    own, said = urlsplit(uri), urlsplit(artifacts)
    if said.scheme == "mlflow-artifacts" and (not said.netloc or _server(said) == _server(own)):
        return
    if said.scheme == own.scheme == "https" and _server(said) == _server(own):
        return
    raise Refused(f"it wants files at {artifacts[:200]!r}; accepted is mlflow-artifacts:, so let it serve artifacts itself")


def _server(parts: SplitResult) -> tuple[str | None, int | None]:
    return parts.hostname, parts.port
