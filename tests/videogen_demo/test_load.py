"""Viewers who do not wait for a slow release: the others are still asked, and no answer is lost."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from videogen_demo.load import MOST_LEFT, Load
from videogen_testing.patience import HANGS

FIRST, SECOND = range(100_000), range(100_000, 200_000)  # numbers of what the first and the second viewer ask


class Releases(http.server.ThreadingHTTPServer):
    """One answers the second viewer at once, the other one the first viewer when the test says so."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.now, self.asked = threading.Event(), list[int]()

    def by(self, viewer: range) -> int:
        return sum(number in viewer for number in self.asked)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Releases

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        number = int(self.headers["x-user-id"].removeprefix("viewer-"))
        self.server.asked.append(number)
        if number in FIRST:
            self.server.now.wait(HANGS)
        self.send_response(200)
        self.send_header("x-videogen-release", "slow" if number in FIRST else "fast")
        body = b'{"outputs": [{"name": "VIDEO", "data": [""]}]}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is the test's."""


@pytest.fixture
def releases() -> Iterator[Releases]:
    server = Releases()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.now.set()
    server.shutdown()
    server.server_close()
    thread.join(HANGS)


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def load_of(releases: Releases, patience: float | None) -> Load:
    return Load(f"http://127.0.0.1:{releases.server_port}", "host", viewers=2, patience=patience).start()


def test_a_viewer_leaves_what_takes_too_long_but_not_more_than_the_slow_release_can_end(releases: Releases) -> None:
    load = load_of(releases, patience=0.02)
    until("the slow release to have all that is left and one that is waited for", lambda: releases.by(FIRST) == MOST_LEFT + 1)
    more = releases.by(SECOND) + 20
    until("twenty more answers of the other one", lambda: releases.by(SECOND) >= more)
    assert releases.by(FIRST) == MOST_LEFT + 1
    releases.now.set()
    load.stop()
    assert len(load.answers) == len(releases.asked), "what was left is counted when its answer comes"
    assert all(answer.ok for answer in load.answers)


def test_else_a_viewer_waits(releases: Releases) -> None:
    load = load_of(releases, patience=None)
    until("twenty answers of the other release", lambda: releases.by(SECOND) >= 20)
    assert releases.by(FIRST) == 1
    releases.now.set()
    load.stop()
