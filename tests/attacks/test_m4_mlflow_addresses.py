"""Whoever names an MLflow server, or runs one, gets the trainer to send things nowhere but to a tracking server; training goes on."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.tracking.file_store import FileStore

from videogen_api.job import Job
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Recipe, Resolution
from videogen_api.tracking import Mlflow
from videogen_testing.mlflow_server import MlflowServer, mlflow_server
from videogen_trainer.tracking import mlflow_address, mlflow_run
from videogen_trainer.tracking.mlflow_address import Refused, check_artifacts, check_server
from videogen_trainer.tracking.mlflow_run import MlflowRun

pytestmark = pytest.mark.timeout(300)  # MLflow's client takes long to import on a machine that others use

JOB = Job(
    contract="v1",
    run="demo",
    run_uid="12345678-0000",
    namespace="videos",
    phase="train",
    attempt=1,
    task="Train",
    model=ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0"),
    recipe=Recipe(frames=2, resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1),
    work_path="runs/demo",
)

NOWHERE = {
    "instance metadata": ("https://169.254.169.254/latest", "169.254.169.254, where clouds have their metadata"),
    "credentials of a task": ("https://169.254.170.2", "where clouds have their metadata"),
    "a number that is an address": ("https://2852039166", "where clouds have their metadata"),
    "another cloud's": ("https://100.100.100.200", "where clouds have their metadata"),
    "by its name": ("https://metadata.google.internal", "is a metadata service"),
    "by its name with a dot": ("https://Metadata.Google.Internal.", "is a metadata service"),
    "the pod itself": ("https://127.0.0.1:23456", "which is the pod itself"),
    "the pod by name": ("https://localhost:23456", "which is the pod itself"),
    "no address": ("https://0.0.0.0:80", "which is no address of a server"),
    "a file": ("file:///etc/passwd", "is no https address"),
}


@pytest.mark.parametrize("uri, why", NOWHERE.values(), ids=NOWHERE)
def test_an_address_that_is_no_tracking_servers_is_refused(uri: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        check_server(uri)


BEHIND = ("169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::1", "::")


@pytest.mark.parametrize("address", BEHIND)
def test_a_name_is_judged_by_all_addresses_that_it_stands_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in ("10.96.0.20", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: found)
    with pytest.raises(Refused, match=r"mlflow\.tracking is "):
        check_server("https://mlflow.tracking")


def test_a_server_in_the_cluster_is_taken_by_https_alone() -> None:
    check_server("https://10.96.0.20:5000")
    with pytest.raises(Refused, match="is no https address"):
        check_server("http://10.96.0.20:5000")


ARTIFACTS = {
    "mlflow-artifacts:/7/a/artifacts": True,
    "mlflow-artifacts://mlflow.example:5000/7": True,
    "https://mlflow.example:5000/files": True,
    "mlflow-artifacts://169.254.169.254/7": False,
    "https://other.example:5000/files": False,
    "http://mlflow.example:5000/files": False,
    "file:///storage": False,
    "/storage": False,
    "": False,
    "s3://bucket/x": False,
    "ftp://mlflow.example:5000/x": False,
    "dbfs:/x": False,
}


@pytest.mark.parametrize("artifacts", ARTIFACTS)
def test_files_go_to_the_server_alone(artifacts: str) -> None:
    if ARTIFACTS[artifacts]:
        check_artifacts(artifacts, "https://mlflow.example:5000")
    else:
        with pytest.raises(Refused, match="accepted is mlflow-artifacts:"):
            check_artifacts(artifacts, "https://mlflow.example:5000")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    monkeypatch.setattr(mlflow_address, "LOOPBACK_IS_REFUSED", False)
    monkeypatch.setattr(mlflow_run, "INTERVAL_SECONDS", 0.05)
    with mlflow_server(tmp_path / "server") as running:
        yield running


def told(uri: str, file: Path) -> MlflowRun:
    """A run with a step and a file to send, when its thread has ended or got rid of both."""
    file.write_text("a file of the phase")
    run = MlflowRun(Mlflow(uri=uri), JOB, file.parent)
    run.file(file)
    run.scalars(1, {"loss": 1.0})
    end = time.monotonic() + 200
    while run._thread.is_alive() and not run.trouble and (run._files or run._steps):
        assert time.monotonic() < end
        time.sleep(0.05)
    return run


def test_a_server_that_wants_files_written_into_the_pod_gets_nothing(
    server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (victim := tmp_path / "storage").mkdir()
    server.store = FileStore(str(tmp_path / "hostile"), f"file://{victim}")
    with caplog.at_level(logging.WARNING, "videogen_trainer"):
        run = told(server.uri, tmp_path / "manifest.json")
        run._thread.join(200)
    assert not run._thread.is_alive(), "it is not tried again"
    assert list(victim.rglob("*")) == []
    assert f"it wants files at 'file://{victim}" in run.summary()
    assert len([record for record in caplog.records if "gets nothing" in record.message]) == 1
    run.close("FINISHED")


def test_a_server_that_sends_the_client_on_gets_it_nowhere(server: MlflowServer, tmp_path: Path) -> None:
    class Redirecting(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on the console."""

        def _redirect(self) -> None:
            self.send_response(307)
            self.send_header("Location", server.uri + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = _redirect  # noqa: N815 - http.server's names

    with mlflow_server(tmp_path / "hostile") as hostile:
        hostile.RequestHandlerClass = Redirecting  # type: ignore[assignment]
        run: Any = told(hostile.uri, tmp_path / "manifest.json")
        run.close("FINISHED")
    assert run.trouble
    assert server.requests == []


def test_a_server_that_serves_artifacts_gets_all(server: MlflowServer, tmp_path: Path) -> None:
    run = told(server.uri, tmp_path / "manifest.json")
    run.close("FINISHED")
    assert run.summary() == ""
    assert [path.read_text() for path in server.artifacts.rglob("manifest.json")] == ["a file of the phase"]
