"""Kubeflow's training-operator on the same control plane, as a process of this machine: PyTorchJob created -> its Pod exists."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bursts import Subject
from videogen_testing.control_plane import BINARIES, ControlPlane, eventually, free_port, process
from videogen_testing.runs import JOBS

NAMESPACE = "benchmark-peer"
WEBHOOK = "validator.training-operator.kubeflow.org"
# Compiled into the program. It only looks whether tls.crt is there; its webhook is never called here.
CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")  # noqa: S108


@contextmanager
def peer(plane: ControlPlane, job: Mapping[str, Any]) -> Iterator[Subject]:
    """Start it; it gets PyTorchJobs with the spec of `job`. Only its own namespace is watched."""
    api = plane.api
    api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    api.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "training-operator-webhook-cert"}})
    api.create("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", {"metadata": {"name": WEBHOOK}, "webhooks": []})
    eventually(lambda: api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"))
    _certificate()
    log, probe = plane.folder / "training-operator.log", free_port()
    with process(_command(plane, probe), log, {"MY_POD_NAMESPACE": NAMESPACE}) as child:
        eventually(lambda: "Starting workers" in log.read_text(encoding="utf-8") or child.poll() is not None, 60)
        assert child.poll() is None, f"training-operator ended: {log.read_text(encoding='utf-8')[-1500:]}"
        yield Subject(
            pid=child.pid,
            agents=("training-operator/",),
            parents=JOBS.format(NAMESPACE),
            children=f"/api/v1/namespaces/{NAMESPACE}/pods",
            manifest=lambda name: _job(name, job),
            parent_of=lambda pod: str(pod["metadata"]["labels"]["training.kubeflow.org/job-name"]),
        )


def _job(name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": {"name": name}, "spec": job["spec"]}


def _command(plane: ControlPlane, probe: int) -> list[str]:
    return [
        str(BINARIES / "training-operator"), f"-kubeconfig={plane.kubeconfig}", f"-namespace={NAMESPACE}", "-enable-scheme=pytorchjob",
        "-metrics-bind-address=0", f"-health-probe-bind-address=127.0.0.1:{probe}", f"-webhook-server-port={free_port()}",
    ]  # fmt: skip


def _certificate() -> None:
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=training-operator", "-days", "2",
        "-keyout", str(CERTIFICATES / "tls.key"), "-out", str(CERTIFICATES / "tls.crt"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
