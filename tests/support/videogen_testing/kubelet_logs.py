"""What of a kubelet `kubectl logs` needs: an HTTPS server that answers the API server with the lines of a container."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from videogen_testing.control_plane import ControlPlane


@contextmanager
def kubelet_with(plane: ControlPlane, lines: Mapping[tuple[str, bool], str]) -> Iterator[int]:
    """Serves logs by pod and whether they are those of the container before; yields the port. The API server asks whom a Node names,
    and verifies no kubelet unless it has an authority.
    """

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            found = lines.get((address.path.split("/")[3], "previous" in parse_qs(address.query)))
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write((found or "none").encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(plane.ca, plane.ca.with_suffix(".key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def node(name: str, port: int, **annotations: str) -> dict[str, object]:
    """The Node of that kubelet, as a node writes it; its status is written apart."""
    return {
        "metadata": {"name": name, "labels": {"pool": "gpus"}, "annotations": annotations},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "capacity": {"cpu": "8"},
            "images": [{"names": ["registry.example.org/private/image:1"], "sizeBytes": 1}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}],
        },
    }
