"""The parts that run on the machine itself: started detached, recorded, ended by id.

A part is recorded with its process id, that process's start time and the boot it belongs to, so that a recycled id is
never mistaken for ours. Names of processes are never looked at.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcluster import cgroups, files
from localcluster.faults import Fault
from localcluster.layout import Layout

LOG_LIMIT = 64 * 1024 * 1024
POLL_SECONDS = 0.1
# Enters the tracking group, then becomes the part itself: the id that was recorded stays the right one.
ENTER = 'echo $$ > "$1" && shift && exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the cluster."""

    name: str
    version: str
    argv: tuple[str | Path, ...]
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60
    in_netns: bool = True
    env: dict[str, str] = field(default_factory=dict)
    configs: tuple[Path, ...] = ()  # files whose change needs a restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is remembered about a part that was started."""

    name: str
    version: str
    pid: int
    ticks: int
    boot: str
    since: float
    fingerprint: str

    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return self.boot == boot_id() and start_ticks(self.pid) == self.ticks


def boot_id() -> str:
    """Identifies the machine's current boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks; None if it is gone or only waits to be reaped."""
    try:
        # The program's name stands in parentheses and may itself contain spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def record_path(layout: Layout, name: str) -> Path:
    """Where a part's record lies."""
    return layout.state / "parts" / f"{name}.json"


def record(layout: Layout, name: str) -> Record | None:
    """The record of a part, if there is a readable one."""
    found: Any = files.read_json(record_path(layout, name))
    try:
        return Record(**found) if found else None
    except TypeError:
        return None  # written by another version of this program


def records(layout: Layout) -> list[Record]:
    """All recorded parts, oldest first."""
    names = [path.stem for path in (layout.state / "parts").glob("*.json")]
    found = [entry for name in names if (entry := record(layout, name))]
    return sorted(found, key=lambda entry: entry.since)


def start(layout: Layout, part: Part) -> bool:
    """Makes sure that a part runs with this configuration; False if it did already."""
    fingerprint = _fingerprint(part)
    known = record(layout, part.name)
    if known and known.alive():
        if known.fingerprint == fingerprint:
            return False
        stop(layout, known)
    pid = _spawn(layout, part)
    ticks = start_ticks(pid)
    if ticks is None:
        raise Fault(f"{part.name} ended at once; see {layout.logs / part.name}.log")
    entry = {
        "name": part.name,
        "version": part.version,
        "pid": pid,
        "ticks": ticks,
        "boot": boot_id(),
        "since": time.time(),
        "fingerprint": fingerprint,
    }
    files.write_json(record_path(layout, part.name), entry)
    _wait_until_ready(layout, part, pid)
    return True


def _fingerprint(part: Part) -> str:
    contents = [path.read_text() for path in part.configs]
    words = [str(word) for word in part.argv]
    # A rebuilt program is another program.
    program = Path(words[0])
    built = str(program.stat().st_mtime_ns) if program.is_file() else ""
    return files.digest(*words, built, *contents, str(sorted(part.env.items())))


def _spawn(layout: Layout, part: Part) -> int:
    layout.logs.mkdir(parents=True, exist_ok=True)
    log = layout.logs / f"{part.name}.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    group = cgroups.tracking_file(f"{layout.cgroup}/parts/{part.name}")
    words = [str(word) for word in part.argv]
    if part.in_netns:
        # Not `ip netns exec`: that would also give a private mount namespace, in which the kubelet's mounts get lost.
        words = ["nsenter", f"--net=/run/netns/{layout.netns}", "--", *words]
    # A clean environment: nothing of the caller's session (proxies, tokens) belongs into a cluster.
    env = {"PATH": f"{layout.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", ENTER, part.name, str(group), *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env | part.env,
            cwd="/",
            start_new_session=True,
        )
    return process.pid


def _wait_until_ready(layout: Layout, part: Part, pid: int) -> None:
    deadline = time.monotonic() + part.ready_seconds
    while part.ready and not part.ready():
        if start_ticks(pid) is None:
            raise Fault(f"{part.name} ended while starting; see {layout.logs / part.name}.log")
        if time.monotonic() > deadline:
            raise Fault(f"{part.name} is not ready after {part.ready_seconds:.0f} s; see {layout.logs / part.name}.log")
        time.sleep(POLL_SECONDS)


def stop(layout: Layout, entry: Record, grace: float = 10) -> None:
    """Ends a part: politely first, then by force; and forgets it."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        if not entry.alive():
            break
        if not patience:
            continue
        os.kill(entry.pid, number)
        deadline = time.monotonic() + patience
        while entry.alive() and time.monotonic() < deadline:
            _reap(entry.pid)
            time.sleep(0.05)
    record_path(layout, entry.name).unlink(missing_ok=True)


def _reap(pid: int) -> None:
    """Collects our own child; a part started by an earlier command is not ours to collect."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
