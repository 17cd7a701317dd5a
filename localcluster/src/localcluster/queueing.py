"""Kueue on the local cluster, for the stories of queues: built here, installed by its own chart, and taken away again.

It manages PyTorchJobs alone, and those of namespaces with our label alone: in others its webhook delays no job.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from localcluster import build, claim, cluster, files, images, loading, node, progress
from localcluster.commands import run
from localcluster.faults import Fault
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout
from localcluster.versions import GO_PARTS, IMAGES

NAMESPACE = "kueue-system"
MANAGED = "localcluster.videogen/kueue"  # label of namespaces whose jobs Kueue looks at
READY_SECONDS = 240
# While Kueue is down, these make every deletion of a namespace hang.
VISIBILITY = ("v1beta1.visibility.kueue.x-k8s.io", "v1beta2.visibility.kueue.x-k8s.io")


def install(repo: Path) -> None:
    """Builds Kueue if need be, and has it answer."""
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        cluster.require_running(layout)
        build.ensure(layout, ["kueue"])
        archive = images.ensure_program(layout, "kueue")
        for each in node.all_nodes(layout):
            loading.import_archive(each, archive, IMAGES["kueue"])
        with progress.step("Kueue"):
            kubectl = cluster.kubectl_of(layout)
            release = ("upgrade", "--install", "kueue", str(chart(layout)), "--create-namespace", "--values", str(_values(layout)))
            _helm(layout, kubectl, *release)
            kubectl.wait(READY_SECONDS, "deployment/kueue-controller-manager", "-n", NAMESPACE, "--for=condition=Available")
            kubectl("delete", "apiservice", *VISIBILITY, "--ignore-not-found")
            kubectl.retry(120, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(_probe()))


def remove(repo: Path) -> None:
    """Takes it away. What waits in a queue must be gone before: a finalizer of Kueue's would hold it."""
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        cluster.require_running(layout)
        kubectl = cluster.kubectl_of(layout)
        if not kubectl.get("customresourcedefinition", "workloads.kueue.x-k8s.io"):
            return
        for kind in ("workloads", "clusterqueues", "resourceflavors"):
            found = kubectl.get(f"{kind}.kueue.x-k8s.io", "-A")  # None: not even an empty list
            if left := found["items"] if found else []:
                raise Fault(f"{len(left)} {kind} are left, the first is {left[0]['metadata']['name']}; delete them before Kueue")
        with progress.step("Kueue removed"):
            _helm(layout, kubectl, "uninstall", "kueue", "--ignore-not-found", "--wait")
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


def chart(layout: Layout) -> Path:
    """Kueue's own chart, out of the module that it is built from."""
    part = next(part for part in GO_PARTS if part.module == "kueue")
    folder, stamp = layout.upstream / "kueue", layout.upstream / ".kueue.stamp"
    if not (folder.is_dir() and stamp.exists() and stamp.read_text() == part.version):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(build.module_folder(layout, part) / "charts/kueue", folder)
        run(["chmod", "-R", "u+w", folder])  # a module's files are read-only
        files.write(stamp, part.version)
    return folder


def values() -> dict[str, Any]:
    """Values of the chart. The configuration is a document inside it, as JSON, which is YAML."""
    repository, _, tag = IMAGES["kueue"].rpartition(":")
    configuration = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": ":8081"},
        "metrics": {"bindAddress": ":8443"},
        "webhook": {"port": 9443},
        "leaderElection": {"leaderElect": False},
        "integrations": {"frameworks": ["kubeflow.org/pytorchjob"]},
        "managedJobsNamespaceSelector": {"matchLabels": {MANAGED: "true"}},
    }
    manager = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }
    return {"controllerManager": {"manager": manager}, "managerConfig": {"controllerManagerConfigYaml": json.dumps(configuration)}}


def _values(layout: Layout) -> Path:
    file = layout.upstream / "kueue-values.json"
    files.write_json(file, values())
    return file


def _helm(layout: Layout, kubectl: Kubectl, *words: str) -> None:
    run([build.program(layout, "helm"), *kubectl.flags, *words, "--namespace", NAMESPACE, "--timeout", "5m"], timeout=400)


def _probe() -> dict[str, Any]:
    """A queue that is never made: the webhook refuses everything until it has its certificate."""
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ClusterQueue",
        "metadata": {"name": "localcluster-probe"},
        "spec": {"namespaceSelector": {}},
    }
