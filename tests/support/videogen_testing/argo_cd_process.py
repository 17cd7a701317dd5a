"""A real Argo CD beside a control plane of tests: its controller, its repo server and a Redis, on loopback; and a git repository.

Everything that it shows stands in the Application's status, so that tests ask the Kubernetes API alone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from videogen_testing.argo_cd import customizations
from videogen_testing.control_plane import BINARIES, Api, ControlPlane, eventually, free_port, process
from videogen_testing.upstream_crds import argo_cd_definitions, install

ARGO = "/apis/argoproj.io/v1alpha1/namespaces/{}"
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
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(item))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message=test")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        return subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class ArgoCd:
    """A running Argo CD."""

    api: Api
    namespace: str

    def application(self, name: str, repository: Repository, target: str, *, server_side_diff: bool = False, **policy: Any) -> str:
        """Make an Application of a repository, for a namespace; it syncs by itself, heals and prunes. -> its path"""
        annotations = {"argocd.argoproj.io/compare-options": "ServerSideDiff=true"} if server_side_diff else {}
        spec = {
            "project": "default",
            "source": {"repoURL": repository.url, "path": ".", "targetRevision": "main"},
            "destination": {"server": HERE, "namespace": target},
            "syncPolicy": {"automated": {"selfHeal": True, "prune": True}, **policy},
        }
        item = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": name, "namespace": self.namespace, "annotations": annotations},
            "spec": spec,
        }
        self.api.create(f"{ARGO.format(self.namespace)}/applications", item)
        return f"{ARGO.format(self.namespace)}/applications/{name}"

    def compared(self, path: str) -> dict[str, Any]:
        """Compare anew with git and the cluster -> the Application's status then."""
        self.api.merge(path, {"metadata": {"annotations": {REFRESH: "hard"}}})
        eventually(lambda: REFRESH not in self.api.get(path)["metadata"].get("annotations", {}))
        status: dict[str, Any] = self.api.get(path)["status"]
        return status

    def synced(self, path: str) -> dict[str, Any]:
        """Sync at once -> what became of it, when it has ended."""
        before = (self.api.get(path).get("status") or {}).get("operationState", {}).get("startedAt")
        self.api.merge(path, {"operation": {"initiatedBy": {"username": "test"}, "sync": {"syncStrategy": {"apply": {}}}}})

        def over() -> Any:
            now = self.api.get(path)
            state = now["status"].get("operationState", {})
            ended = "operation" not in now and state.get("finishedAt") and state["phase"] != "Running"
            return state if ended and state["startedAt"] != before else None

        found: dict[str, Any] = eventually(over, every=0.5)
        return found


def health_of(status: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Sync status and health of the only object of a kind, as the Application's status tells them."""
    (found,) = (one for one in status["resources"] if one["kind"] == kind)
    return found.get("status", ""), (found.get("health") or {}).get("status", "")


@contextmanager
def argo_cd(plane: ControlPlane, folder: Path, namespace: str = "argocd") -> Iterator[ArgoCd]:
    """Installed with the chart's customisations, and running, when the block begins."""
    missing = [name for name in ("argocd", "argocd-redis") if not (BINARIES / name).exists()]
    assert not missing, f"{BINARIES} lacks {', '.join(missing)}; build them with: localcluster/localcluster tools argo-cd"
    install(plane.api, argo_cd_definitions())
    _configure(plane.api, namespace)
    redis, repo = free_port(), free_port()
    common = [f"--kubeconfig={plane.kubeconfig}", f"--namespace={namespace}", f"--redis=127.0.0.1:{redis}"]
    syncing = [f"--repo-server=127.0.0.1:{repo}", "--app-resync=0", "--self-heal-timeout-seconds=0", "--persist-resource-health"]
    parts = {
        "repo-server": ["--address=127.0.0.1", f"--port={repo}", "--metrics-address=127.0.0.1", f"--redis=127.0.0.1:{redis}"],
        "application-controller": [*common, *syncing],
    }
    with ExitStack() as stack:
        stack.enter_context(process([str(BINARIES / "argocd-redis"), f"127.0.0.1:{redis}"], folder / "redis.log"))
        for name, flags in parts.items():
            command = [str(BINARIES / "argocd"), *flags, f"--metrics-port={free_port()}"]
            stack.enter_context(process(command, folder / f"{name}.log", _environment(plane, folder, f"argocd-{name}")))
        yield ArgoCd(plane.api, namespace)


def _configure(api: Api, namespace: str) -> None:
    """What upstream's installation has beside pods and rights."""
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    labels = {"app.kubernetes.io/part-of": "argocd"}
    maps: dict[str, dict[str, str]] = {"argocd-cm": customizations(), "argocd-rbac-cm": {}, "argocd-cmd-params-cm": {}}
    maps |= {"argocd-ssh-known-hosts-cm": {}, "argocd-tls-certs-cm": {}, "argocd-gpg-keys-cm": {}}
    for name, data in maps.items():
        api.create(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": name, "labels": labels}, "data": data})
    api.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "argocd-secret", "labels": labels}})
    everything = [{"group": "*", "kind": "*"}]
    project = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}], "clusterResourceWhitelist": everything},
    }
    api.create(f"{ARGO.format(namespace)}/appprojects", project)


def _environment(plane: ControlPlane, folder: Path, part: str) -> dict[str, str]:
    for name in ("tls", "ssh", "gpg", "plugins", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "ARGOCD_"))} | {
        "KUBECONFIG": str(plane.kubeconfig),
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
