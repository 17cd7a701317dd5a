"""A real Argo CD for a cluster of tests: its controller, its repo server and a Redis, as processes on loopback; and a git repository.

Everything that it shows stands in the Application's status, so that tests ask the Kubernetes API alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogen_demo.kubectl import Cluster, condition
from videogen_testing.argo_cd import customizations
from videogen_testing.control_plane import BINARIES, eventually, free_port, process
from videogen_testing.upstream_crds import argo_cd_definitions

ARGO, APPLICATION, NAMESPACE = "argoproj.io/v1alpha1", "applications.argoproj.io", "argocd"
HERE = "https://kubernetes.default.svc"  # as Argo CD calls the cluster that it runs in
REFRESH = "argocd.argoproj.io/refresh"


class Repository:
    """A git repository in a folder, with one branch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, f"file://{folder}"
        folder.mkdir()
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, files: Mapping[str, Any]) -> str:
        """Make the tree hold just these objects, and return the commit."""
        for old in self.folder.glob("*.yaml"):
            old.unlink()
        for name, item in files.items():
            (self.folder / f"{name}.yaml").write_text(json.dumps(item))  # as JSON, since Go reads the 1e-3 that PyYAML writes as a number
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message=test")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        return subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class ArgoCd:
    """A running Argo CD."""

    cluster: Cluster

    def application(self, name: str, repository: Repository, target: str, *, server_side_diff: bool = False, **policy: Any) -> None:
        """Make an Application of a repository, for a namespace; it syncs by itself, heals and prunes."""
        annotations = {"argocd.argoproj.io/compare-options": "ServerSideDiff=true"} if server_side_diff else {}
        spec = {
            "project": "default",
            "source": {"repoURL": repository.url, "path": ".", "targetRevision": "main"},
            "destination": {"server": HERE, "namespace": target},
            "syncPolicy": {"automated": {"selfHeal": True, "prune": True}, **policy},
        }
        metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
        self.cluster.apply({"apiVersion": ARGO, "kind": "Application", "metadata": metadata, "spec": spec})

    def found(self, name: str) -> dict[str, Any]:
        """The Application."""
        item = self.cluster.get(APPLICATION, name, NAMESPACE)
        assert item
        return item

    def compared(self, name: str) -> dict[str, Any]:
        """Compare anew with git and the cluster -> the Application's status then."""
        self._patch(name, {"metadata": {"annotations": {REFRESH: "hard"}}})
        eventually(lambda: REFRESH not in self.found(name)["metadata"].get("annotations", {}), every=0.2)
        status: dict[str, Any] = self.found(name)["status"]
        return status

    def synced(self, name: str, *, prune: bool = False) -> dict[str, Any]:
        """Sync at once -> what became of it, when it has ended."""
        eventually(lambda: "operation" not in self.found(name), every=0.2)
        mark = [{"name": "test", "value": uuid.uuid4().hex}]
        asked = {"initiatedBy": {"username": "test"}, "info": mark, "sync": {"prune": prune}}
        self._patch(name, {"operation": asked})

        def over() -> dict[str, Any] | None:
            state: dict[str, Any] = (self.found(name).get("status") or {}).get("operationState", {})
            ours = state.get("operation", {}).get("info") == mark
            return state if ours and state["phase"] not in {"Running", "Terminating"} else None

        found = eventually(over, every=0.2)
        assert found
        return found

    def _patch(self, name: str, patch: dict[str, Any]) -> None:
        self.cluster("patch", APPLICATION, name, "--namespace", NAMESPACE, "--type=merge", f"--patch={json.dumps(patch)}")


def health_of(status: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Sync status and health of the only object of a kind, as the Application's status tells them."""
    found: Mapping[str, Any] = next((one for one in status.get("resources", []) if one["kind"] == kind), {})
    return found.get("status", ""), (found.get("health") or {}).get("status", "")


@contextmanager
def argo_cd(cluster: Cluster, folder: Path) -> Iterator[ArgoCd]:
    """Installed with the chart's customisations, and running, when the block begins; its objects go when the block ends."""
    assert cluster.kubeconfig
    missing = [name for name in ("argocd", "argocd-redis") if not (BINARIES / name).exists()]
    assert not missing, f"{BINARIES} lacks {', '.join(missing)}; build them with: localcluster/localcluster tools argo-cd"
    definitions = argo_cd_definitions()
    cluster.apply(*definitions)
    # `kubectl wait` fails on one that is so new that it has no conditions.
    names = [one["metadata"]["name"] for one in definitions]
    eventually(lambda: all(condition(cluster.get("crd", name), "Established").get("status") == "True" for name in names), every=0.2)
    cluster.apply(*_installation())
    redis, repo = free_port(), free_port()
    cache = f"--redis=127.0.0.1:{redis}"
    parts = {
        "repo-server": ["--address=127.0.0.1", f"--port={repo}", "--metrics-address=127.0.0.1", cache],
        "application-controller": [
            f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}", cache, f"--repo-server=127.0.0.1:{repo}",
            "--app-resync=0", "--self-heal-timeout-seconds=0", "--persist-resource-health",
        ],
    }  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(process([str(BINARIES / "argocd-redis"), f"127.0.0.1:{redis}"], folder / "redis.log"))
        for name, flags in parts.items():
            command = [str(BINARIES / "argocd"), *flags, f"--metrics-port={free_port()}"]
            stack.enter_context(process(command, folder / f"{name}.log", _environment(cluster.kubeconfig, folder, f"argocd-{name}")))
        try:
            yield ArgoCd(cluster)
        finally:  # without its finalizer an Application leaves what it has applied
            cluster("delete", "namespace", NAMESPACE, "--timeout=120s")


def _installation() -> list[dict[str, Any]]:
    """What upstream's installation has beside pods and rights."""
    labels = {"app.kubernetes.io/part-of": "argocd"}
    maps: dict[str, dict[str, str]] = {"argocd-cm": customizations(), "argocd-rbac-cm": {}, "argocd-cmd-params-cm": {}}
    maps |= {"argocd-ssh-known-hosts-cm": {}, "argocd-tls-certs-cm": {}, "argocd-gpg-keys-cm": {}}
    project = {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        *(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "data": data}
            for name, data in maps.items()
        ),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", "namespace": NAMESPACE, "labels": labels}},
        {"apiVersion": ARGO, "kind": "AppProject", "metadata": {"name": "default", "namespace": NAMESPACE}, "spec": project},
    ]


def _environment(kubeconfig: Path, folder: Path, part: str) -> dict[str, str]:
    for name in ("tls", "ssh", "gpg", "plugins", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "ARGOCD_"))} | {
        "KUBECONFIG": str(kubeconfig),
        "ARGOCD_BINARY_NAME": part,
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        "ARGOCD_TLS_DATA_PATH": str(folder / "tls"),
        "ARGOCD_SSH_DATA_PATH": str(folder / "ssh"),
        "ARGOCD_GNUPGHOME": str(folder / "gpg"),
        "ARGOCD_GPG_DATA_PATH": str(folder / "gpg"),
        "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_PLUGINSOCKFILEPATH": str(folder / "plugins"),
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder),
        # How long it waits between two waves and between two syncs of one commit, and how old an answer of git may be.
        "ARGOCD_SYNC_WAVE_DELAY": "0",
        "ARGOCD_APPLICATION_CONTROLLER_SELF_HEAL_BACKOFF_TIMEOUT_SECONDS": "1",
        "ARGOCD_APPLICATION_CONTROLLER_SELF_HEAL_BACKOFF_CAP_SECONDS": "1",
    }
