"""Control groups: how processes are found again after everything that remembered them was killed.

Works with version 1 (one hierarchy per controller) and version 2 (one hierarchy). Our own parts are tracked in one
hierarchy only; a node's pods need their root in every controller, made before the kubelet starts.
"""

import os
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
KILL_ROUNDS = 50


def unified() -> bool:
    """Whether the machine has cgroup v2 only."""
    return (ROOT / "cgroup.controllers").exists()


def tracking_root() -> Path:
    """The hierarchy in which our parts are found again."""
    return ROOT if unified() else ROOT / "pids"


def hierarchies() -> list[Path]:
    """Every hierarchy a kubelet needs its root in."""
    if unified():
        return [ROOT]
    # systemd's and the unified hierarchy of a hybrid machine carry no controllers for the kubelet.
    return [path for path in sorted(ROOT.iterdir()) if path.is_dir() and (path / "cgroup.procs").exists()]


def create(name: str) -> None:
    """Makes a group in every hierarchy, ready for children and processes."""
    for hierarchy in hierarchies():
        group = hierarchy
        for component in name.split("/"):
            _delegate(group)
            group = group / component
            group.mkdir(exist_ok=True)
            _inherit_cpuset(group)


def _delegate(group: Path) -> None:
    """Hands controllers to children (version 2); one that is missing is no reason to stop."""
    control = group / "cgroup.subtree_control"
    if not control.exists() or not unified():
        return
    for controller in V2_CONTROLLERS:
        try:
            control.write_text(f"+{controller}")
        except OSError:
            continue


def _inherit_cpuset(group: Path) -> None:
    """A version 1 cpuset starts empty, and an empty one accepts no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own = group / name
        if own.exists() and not unified() and not own.read_text().strip():
            own.write_text((group.parent / name).read_text())


def tracking_file(name: str) -> Path:
    """Makes a group for tracking; a process that writes its id to this file is in it, with all its children."""
    group = tracking_root()
    for component in name.split("/"):
        _delegate(group)
        group = group / component
        group.mkdir(exist_ok=True)
    return group / "cgroup.procs"


def processes(name: str) -> set[int]:
    """Ids of all processes in a group and below it, in every hierarchy."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for folder, _, files in os.walk(hierarchy / name):
            if "cgroup.procs" in files:
                found |= _members(Path(folder) / "cgroup.procs")
    return found


def _members(file: Path) -> set[int]:
    try:
        return {int(line) for line in file.read_text().split()}
    except OSError:
        return set()  # the group went away while we looked


def kill(name: str) -> int:
    """Ends everything in a group, at once; how many processes there were."""
    killed: set[int] = set()
    for _ in range(KILL_ROUNDS):
        alive = processes(name) - {0}
        if not alive:
            break
        killed |= alive
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    return len(killed)


def remove(name: str) -> None:
    """Removes an empty group with all that is below it."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue
