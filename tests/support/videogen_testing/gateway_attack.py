"""Runs in a network of its own, where there is loopback and nothing else: Envoy Gateway with Envoy, a pod, and a hostile viewer.

`python -m videogen_testing.gateway_attack FOLDER ENVOY_GATEWAY HOST`; the last line is JSON: what the viewer was answered and what the
pod heard, by attack.
"""

import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from videogen_testing.gateway_files import GATEWAY_PORT, POD_PORT
from videogen_testing.patience import HANGS

INFER, READY = "/v2/models/video/infer", "/v2/models/video/ready"
ANSWER_SECONDS = 120
MANY = 60  # requests at once
BOMB = gzip.compress(bytes(32 << 20))  # 32 KiB that become 32 MiB in a server that inflates them
ENCODINGS = ("gzip", "deflate", "GZIP, gzip")
OTHER_PATHS = (
    *(("GET", path) for path in (INFER, "/v2", "/metrics", "/v2/models/video/config", "/v2/models/video/stats", "/v2/health/live")),
    *(("POST", path) for path in (READY, INFER + "/", "/v2/models/video/generate", "/v2/repository/index")),
    ("POST", "/inference.GRPCInferenceService/ModelInfer"),
)


class Pod:
    """An HTTP/1.1 server that remembers how much of each request came, in how many chunks; it answers when `open` is set."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.open = threading.Event()
        self.open.set()
        self._server = socket.create_server(("127.0.0.1", POD_PORT), backlog=1000)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while line := stream.readline():
                    record = {"path": line.split()[1].decode(), "chunks": 0, "bytes": 0}
                    self.heard.append(record)
                    _read(stream, record)
                    self.open.wait(ANSWER_SECONDS)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            except OSError:
                return  # Envoy has given the request up


def _read(stream: BinaryIO, record: dict[str, Any]) -> None:
    headers = http.client.parse_headers(stream)
    if encoding := headers.get("content-encoding"):
        record["encoding"] = encoding
    if headers.get("transfer-encoding") == "chunked":
        while size := int(stream.readline(), 16):
            record["bytes"] += len(stream.read(size))
            record["chunks"] += 1
            stream.readline()
        stream.readline()
        return
    left = int(headers.get("content-length", 0))
    while left and (piece := stream.read(min(left, 65536))):
        record["bytes"] += len(piece)
        left -= len(piece)


class Viewer:
    """Whoever reaches the gateway."""

    def __init__(self, host: str) -> None:
        self.host = host

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        """The answer's status; 0 if the connection was closed instead, as it is while a refused body is still being sent."""
        connection = http.client.HTTPConnection("127.0.0.1", GATEWAY_PORT, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, {"Host": self.host} | headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except OSError:
            return 0
        finally:
            connection.close()

    def chunks(self, count: int) -> int:
        """A body of so many chunks of one byte."""
        with self._begin("Transfer-Encoding: chunked") as connection:
            try:
                for _ in range(count // 1000):
                    connection.sendall(b"1\r\nx\r\n" * 1000)
                connection.sendall(b"0\r\n\r\n")
            except OSError:
                pass  # refused before its end
            return _status(connection)

    def unfinished(self) -> socket.socket:
        """Half of a body."""
        connection = self._begin("Content-Length: 60000")
        connection.sendall(b"x" * 30000)
        return connection

    def _begin(self, header: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", GATEWAY_PORT), timeout=ANSWER_SECONDS)
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: {self.host}\r\n{header}\r\n\r\n".encode())
        return connection


def _status(connection: socket.socket) -> int:
    try:
        line = connection.recv(4096).split(b"\r\n")[0]
    except OSError:
        return 0
    return int(line.split()[1]) if line else 0


def attacks(viewer: Viewer, pod: Pod) -> Iterator[tuple[str, Any]]:
    """Each attack with what was answered; what the pod heard is added by the caller."""
    yield "accepted", [viewer.ask("POST", INFER, b"{}"), viewer.ask("GET", READY)]
    yield "other paths", {f"{method} {path}": viewer.ask(method, path, b"{}" if method == "POST" else None) for method, path in OTHER_PATHS}
    yield "60 KiB", viewer.ask("POST", INFER, bytes(60 << 10))
    yield "70 KiB", viewer.ask("POST", INFER, bytes(70 << 10))
    yield "200 MiB", viewer.ask("POST", INFER, bytes(200 << 20))
    for encoding in ENCODINGS:
        yield f"compressed with {encoding}", viewer.ask("POST", INFER, BOMB, **{"Content-Encoding": encoding})
    yield "50,000 chunks", viewer.chunks(50_000)
    yield "600,000 chunks", viewer.chunks(600_000)
    uploads = [viewer.unfinished() for _ in range(20)]
    yield "unfinished", [_status(upload) for upload in uploads]
    for upload in uploads:
        upload.close()
    yield "at once", _at_once(viewer, pod)


def _at_once(viewer: Viewer, pod: Pod) -> list[int]:
    """All are sent before the pod answers any: until then the gateway answers those for which it has no room."""
    pod.open.clear()
    with ThreadPoolExecutor(MANY) as pool:
        asked = [pool.submit(viewer.ask, "POST", INFER, b"{}") for _ in range(MANY)]
        _wait(lambda: len({number for number, answer in enumerate(asked) if answer.done()}) > 0, HANGS)
        time.sleep(5)
        pod.open.set()
        return sorted(answer.result() for answer in asked)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.2)
    return found


@contextmanager
def gateway(folder: Path, program: str) -> Iterator[None]:
    """Envoy Gateway, which starts Envoy."""
    with (folder / "log").open("w") as log:
        certificates = [program, "certgen", "--local", "--config-home", str(folder / "config")]
        subprocess.run(certificates, stdout=log, stderr=log, check=True)
        started = subprocess.Popen([program, "server", "--config-path", str(folder / "envoy-gateway.yaml")], stdout=log, stderr=log)
    try:
        yield
    finally:
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def main(folder: Path, program: str, host: str) -> int:
    """0 if all attacks were made, whatever came of them."""
    pod, viewer = Pod(), Viewer(host)
    with gateway(folder, program):
        if not _wait(lambda: viewer.ask("GET", READY) == 200, HANGS):
            print((folder / "log").read_text()[-3000:], file=sys.stderr)
            return 1
        found = {}
        pod.heard.clear()
        for name, answered in attacks(viewer, pod):
            found[name] = {"answered": answered, "heard": list(pod.heard)}
            pod.heard.clear()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
