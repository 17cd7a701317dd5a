"""Clearing away what a cluster left behind when everything was killed at once, or the machine went down.

Only what is certainly ours is touched: processes by control group, mounts by folder, the namespace and the link by
name, files by folder.
"""

import os
import shutil
from pathlib import Path

from localcluster import cgroups, links, network, processes, progress
from localcluster.commands import run, succeeds
from localcluster.layout import Layout
from localcluster.node import Node, all_nodes

CNI_CACHE = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")


def anything_alive(layout: Layout) -> bool:
    """Whether any recorded part still runs."""
    return any(entry.alive() for entry in processes.records(layout))


def clean(layout: Layout) -> None:
    """Ends orphans and removes every trace of running; data and images stay."""
    killed = cgroups.kill(layout.cgroup)
    if killed:
        progress.say(f"{killed} processes of pods ended")
    for entry in processes.records(layout):
        processes.record_path(layout, entry.name).unlink(missing_ok=True)
    unmount_below(layout.home)
    unmount_below(layout.run)
    network.down(layout)
    cgroups.remove(layout.cgroup)
    shutil.rmtree(layout.run, ignore_errors=True)
    for node in all_nodes(layout):
        forget_pods(node)
    _remove_half_written(layout)


def forget_pods(node: Node) -> None:
    """Forgets the addresses and links of a node's pods: none of them runs any more."""
    shutil.rmtree(node.home / "ipam", ignore_errors=True)
    for cached in CNI_CACHE.glob(f"{node.cni_network}-*"):
        cached.unlink(missing_ok=True)
    logs = str(node.home / "pod-logs")
    for link in CONTAINER_LOGS.glob("*.log"):
        if link.is_symlink() and os.readlink(link).startswith(logs):
            link.unlink(missing_ok=True)


def unmount_below(folder: Path) -> int:
    """Unmounts everything in a folder, the innermost first; how many there were."""
    points = mounts_below(folder, Path("/proc/self/mountinfo").read_text())
    for point in points:
        # Where mounts are shared, one may have gone together with another.
        if not succeeds(["umount", point]) and links.is_mounted(Path(point)):
            run(["umount", "--lazy", point])
    return len(points)


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """Mount points in a folder, in the order in which they can be taken away."""
    inside = [mount.point for mount in links.mounts(mountinfo) if mount.point.startswith(f"{folder}/")]
    return list(reversed(inside))


def _remove_half_written(layout: Layout) -> None:
    """Builds and downloads that were cut off; finished ones were renamed."""
    for pattern in ("bin/.building-*", "images/.envoy", "images/.*.tar"):
        for path in layout.home.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
