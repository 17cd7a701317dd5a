"""Progress posts, against a real HTTP server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from videogen_testing.patience import HANGS
from videogen_trainer.progress import Endpoint, ProgressReporter, endpoint_of, trainer_status

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


class Server(ThreadingHTTPServer):
    """Remembers what it got; answers with `status`, after `hold` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str | None, Any]] = []
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.headers["Authorization"], body["trainerStatus"]))
        self.server.hold.wait(HANGS)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.hold.set()
        running.shutdown()
        thread.join()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(server: Server, clock: Clock, tmp_path: Path) -> ProgressReporter:
    token = tmp_path / "token"
    token.write_text("secret\n")
    return ProgressReporter(Endpoint(url=f"http://127.0.0.1:{server.server_port}/x", token_file=token), 5, clock, lambda: NOW)


def test_a_post_has_the_protocols_fields_and_the_token(server: Server, clock: Clock, reporter: ProgressReporter) -> None:
    reporter.report(10, 100, {"step": 10}, final=True)
    clock.now = 20.0
    reporter.report(20, 100, {"step": 20, "loss": "0.5"}, final=True)
    assert server.received[1] == (
        "Bearer secret",
        {
            "progressPercentage": 20,
            "estimatedRemainingSeconds": 160,  # 10 parts took 20 s
            "metrics": [{"name": "step", "value": "20"}, {"name": "loss", "value": "0.5"}],
            "lastUpdatedTime": "2026-11-22T10:30:00Z",
        },
    )


def test_one_post_an_interval(server: Server, clock: Clock, reporter: ProgressReporter) -> None:
    for second in range(12):
        clock.now = float(second)
        reporter.report(second, 100, {})
        if reporter._thread:
            reporter._thread.join()
    assert [status["progressPercentage"] for _, status in server.received] == [0, 5, 10]


def test_a_rotated_token_is_read_anew(server: Server, reporter: ProgressReporter, tmp_path: Path) -> None:
    reporter.report(1, 2, {}, final=True)
    (tmp_path / "token").write_text("newer")
    reporter.report(2, 2, {}, final=True)
    assert [token for token, _ in server.received] == ["Bearer secret", "Bearer newer"]


def test_a_slow_server_delays_nothing_and_gets_no_second_post_meanwhile(server: Server, clock: Clock, reporter: ProgressReporter) -> None:
    server.hold.clear()
    for second in (0, 10, 20):
        clock.now = float(second)
        reporter.report(second, 100, {})
    server.hold.set()
    assert reporter._thread
    reporter._thread.join()
    assert [status["progressPercentage"] for _, status in server.received] == [0]


@pytest.mark.parametrize("trouble", ["refuses", "is gone", "has no token"])
def test_a_server_in_trouble_is_logged_once_and_stops_nothing(
    server: Server, reporter: ProgressReporter, tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    if trouble == "refuses":
        server.status = 401
    elif trouble == "is gone":
        reporter._endpoint = Endpoint(url="http://127.0.0.1:1/", token_file=tmp_path / "token")
    else:
        (tmp_path / "token").unlink()
    for done in range(3):
        reporter.report(done, 3, {}, final=True)
    assert [record.message for record in caplog.records if "cannot be posted" in record.message] == [caplog.records[0].message]


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        ({"KUBEFLOW_TRAINER_SERVER_URL": "http://o"}, None),
        (
            {"KUBEFLOW_TRAINER_SERVER_URL": "http://o", "KUBEFLOW_TRAINER_SERVER_TOKEN": "/t"},
            Endpoint(url="http://o", token_file=Path("/t")),
        ),
        (
            {"KUBEFLOW_TRAINER_SERVER_URL": "https://o", "KUBEFLOW_TRAINER_SERVER_TOKEN": "/t", "KUBEFLOW_TRAINER_SERVER_CA_CERT": "/c"},
            Endpoint(url="https://o", token_file=Path("/t"), ca_file=Path("/c")),
        ),
    ],
    ids=["nothing is set", "no token", "plain HTTP", "with a CA"],
)
def test_the_endpoint_comes_from_the_environment(environment: dict[str, str], expected: Endpoint | None) -> None:
    assert endpoint_of(environment) == expected


def test_before_anything_is_done_there_is_no_estimate() -> None:
    status: Any = trainer_status(7, 10, {}, elapsed=0.0, since=7, now=NOW)["trainerStatus"]
    assert status == {"progressPercentage": 70, "metrics": [], "lastUpdatedTime": "2026-11-22T10:30:00Z"}
