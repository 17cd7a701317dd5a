"""Starting, stopping and extending the cluster: the order of things.

`up` brings the machine from whatever state it is in to a running cluster. Each step looks before it acts, so that a
second `up` only looks.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from localcluster import (
    addons,
    apt,
    build,
    cgroups,
    claim,
    controlplane,
    enforcement,
    images,
    loading,
    monitoring,
    network,
    node,
    objects,
    pki,
    preflight,
    processes,
    progress,
    recovery,
    services,
    status,
    storage,
)
from localcluster.faults import Fault
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout
from localcluster.processes import Part
from localcluster.versions import IMAGES

GPUS = "8"
GATEWAY_SECONDS = 120
STOP_ORDER = (
    *("kubelet", "keeper", "prometheus", "alertmanager", "kube-proxy", "coredns", enforcement.NAME),
    *("kube-controller-manager", "kube-scheduler", "containerd", "kube-apiserver", "etcd"),
)


def kubectl_of(layout: Layout) -> Kubectl:
    """The administrator's kubectl."""
    return Kubectl(layout.bin / "kubectl", layout.kubeconfig)


def prepare(layout: Layout) -> None:
    """Everything that can be done before anything runs: packages, binaries, images."""
    apt.ensure()
    build.ensure(layout)
    addons.ensure_upstream(layout)
    images.ensure_static(layout)
    images.ensure_built(layout)


def up(repo: Path) -> Layout:
    """Brings the cluster up, whatever was left of it."""
    preflight.check(Layout(repo=repo, index=0))
    with claim.exclusive(repo):
        layout = claim.acquire(repo)
        prepare(layout)
        if not recovery.anything_alive(layout):
            recovery.clean(layout)
        with progress.step("network and certificates"):
            network.up(layout)
            pki.ensure(layout)
        for part in controlplane.parts(layout):
            _start(layout, part)
        with progress.step("objects of the cluster"):
            _apply_objects(layout)
        # Before any pod runs.
        with progress.step(enforcement.NAME):
            unenforced = enforcement.start(layout)
        if unenforced:
            progress.say(enforcement.warning(unenforced))
        _start(layout, keeper(layout))
        services.prepare(layout)
        for part in services.parts(layout):
            _start(layout, part)
        for each in node.all_nodes(layout):
            start_node(layout, each)
        monitoring.prepare(layout)
        for part in monitoring.parts(layout):
            _start(layout, part)
        with progress.step("training-operator and Envoy Gateway"):
            ours = addons.install(layout, kubectl_of(layout), addons.LOCAL_IMAGES)
            addons.wait(kubectl_of(layout), ours)
            _wait_for_gateway(layout)
    return layout


def _apply_objects(layout: Layout) -> None:
    """Applies the cluster's own objects if they changed or one is missing: after a start, applying takes seconds."""
    kubectl, wanted = kubectl_of(layout), objects.all_objects(layout)
    stamp = objects.stamp(wanted)
    found = kubectl("get", "-f", "-", "--ignore-not-found", "-o", "name", stdin=objects.as_list([*wanted, stamp])).split()
    there = kubectl.get("configmap", objects.STAMP, "-n", "kube-system") if len(found) == len(wanted) + 1 else None
    if there is None or there["data"] != stamp["data"]:
        kubectl.apply([*wanted, stamp])


def _wait_for_gateway(layout: Layout) -> None:
    """After a restart the API server still tells of the old Envoy: only an answer proves the new one."""
    deadline = time.monotonic() + GATEWAY_SECONDS
    while time.monotonic() < deadline:
        url = status.gateway_url(layout)
        if url and monitoring.speaks_http(url):
            return
        time.sleep(0.5)
    raise Fault(f"the Gateway does not answer after {GATEWAY_SECONDS} s; see the pods in {addons.ENVOY_NAMESPACE}")


def _start(layout: Layout, part: Part) -> None:
    with progress.step(part.name):
        processes.start(layout, part)


def keeper(layout: Layout) -> Part:
    """The process that provides volumes and GPUs; see keeper.py."""
    source = Path(__file__).resolve().parent
    layout.volumes.mkdir(parents=True, exist_ok=True)
    return Part(
        name="keeper",
        version="1",
        argv=(sys.executable, "-m", "localcluster.keeper", layout.kubeconfig, layout.volumes, GPUS, monitoring.target_folder(layout)),
        in_netns=False,
        env={"PYTHONPATH": str(source.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        configs=(*(source / name for name in ("keeper.py", "targets.py", "scraping.py", "apiclient.py")), layout.kubeconfig),
    )


def start_node(layout: Layout, each: node.Node) -> None:
    """Starts one node with all images in it."""
    with progress.step(f"configuration of {each.name}"):
        node.prepare(each)
    _start(layout, node.containerd(each))
    for name in images.STATIC:
        loading.import_archive(each, layout.images / f"{name}.tar", IMAGES[name])
    _load_from_buildah([each], [IMAGES["python-base"], IMAGES["envoy"]])
    _start(layout, node.kubelet(each))


def load(repo: Path, sources: list[str]) -> None:
    """Takes images into every node: from buildah's storage, or from archives and folders."""
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        require_running(layout)
        names = [name for source in sources for name in (storage.take(Path(source)) if Path(source).exists() else [source])]
        _load_from_buildah(node.all_nodes(layout), names)


def _load_from_buildah(nodes: list[node.Node], names: list[str]) -> None:
    store = storage.root()
    for name in names:
        image = storage.find(store, storage.full_name(name))
        for each in nodes:
            loading.load(each, image)


def prune_images(repo: Path) -> None:
    """Removes images from the nodes that buildah has no more and no container runs."""
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        require_running(layout)
        kept = storage.names(storage.root()) | set(IMAGES.values())
        for each in node.all_nodes(layout):
            for name in set(loading.names(each)) - kept - loading.used(each):
                progress.say(f"{each.name}: {name} removed")
                loading.remove(each, name)


def require_running(layout: Layout) -> None:
    """Raises a Fault unless there is an API server of ours."""
    entry = processes.record(layout, "kube-apiserver")
    if not entry or not entry.alive():
        raise Fault("the cluster of this checkout does not run; start it by `localcluster up`")


def down(repo: Path, purge: bool) -> None:
    """Ends everything; with `purge`, forgets the cluster's state as well."""
    if os.geteuid() != 0:
        raise Fault("stopping the cluster needs root")
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        with progress.step("parts stopped"):
            for entry in stop_order(processes.records(layout)):
                # An API server would wait a minute for the watches of pods that are about to be ended.
                processes.stop(layout, entry, grace=1 if entry.name == "kube-apiserver" else 10)
        if holder := claim.other_holder(layout):
            progress.say(f"groups, mounts and network belong to the cluster of {holder} now and stay")
        else:
            with progress.step("pods, mounts and network removed"):
                recovery.clean(layout)
        if purge:
            with progress.step("state forgotten"):
                _forget(layout)
        claim.release(layout)


def stop_order(entries: list[processes.Record]) -> list[processes.Record]:
    """Kubelets first, so that nothing is started again; the store last."""

    def position(entry: processes.Record) -> int:
        return next((place for place, prefix in enumerate(STOP_ORDER) if entry.name.startswith(prefix)), 0)

    return sorted(entries, key=position)


def _forget(layout: Layout) -> None:
    monitoring.purge(layout)
    for folder in (layout.state, layout.pki, layout.home / "nodes", layout.volumes, layout.logs):
        shutil.rmtree(folder, ignore_errors=True)
    layout.kubeconfig.unlink(missing_ok=True)


def add_node(repo: Path, name: str) -> None:
    """Adds a second (third, ...) real node with the images that the first one has, or starts one that was killed."""
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        require_running(layout)
        added = node.named(layout, name)
        start_node(layout, added)
        first = node.named(layout, node.FIRST)
        archives = {IMAGES[name]: layout.images / f"{name}.tar" for name in images.STATIC | images.ON_DEMAND}
        for image in set(loading.names(first)) - set(loading.names(added)):
            if image in archives:
                loading.import_archive(added, archives[image], image)
            else:
                _load_from_buildah([added], [image])


def remove_node(repo: Path, name: str, seconds: float = 30) -> None:
    """Takes a node away: the object, its processes, its pods, its folders."""
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        removed = node.named(layout, name)
        if name == node.FIRST:
            raise Fault("the first node stays as long as the cluster does")
        if not removed.home.exists():
            raise Fault(f"there is no {name}")
        for prefix in ("kubelet", "containerd"):
            entry = processes.record(layout, f"{prefix}-{name}")
            if entry:
                processes.stop(layout, entry)
        kubectl_of(layout)("delete", "node", name, "--ignore-not-found", timeout=seconds)
        kill_pods(removed)
        shutil.rmtree(removed.home, ignore_errors=True)


def kill_node(repo: Path, name: str) -> None:
    """Plays a node's loss of power: everything of it ends at once, and the cluster has to find out."""
    with claim.exclusive(repo):
        layout = claim.known_layout(repo)
        lost = node.named(layout, name)
        for prefix in ("kubelet", "containerd"):
            entry = processes.record(layout, f"{prefix}-{name}")
            if not entry or not entry.alive():
                raise Fault(f"{name} does not run")
            processes.stop(layout, entry, grace=0)
        kill_pods(lost)


def kill_pods(each: node.Node) -> None:
    """Ends what still runs of a node whose kubelet and containerd are gone."""
    layout = each.layout
    for group in (each.cgroup, f"{layout.cgroup}/parts/containerd-{each.name}"):
        cgroups.kill(group)
        cgroups.remove(group)
    recovery.unmount_below(each.home)
    recovery.unmount_below(each.run)
    recovery.forget_pods(each)
    shutil.rmtree(each.run, ignore_errors=True)
    network.remove_node(layout, each.number, each.address)
