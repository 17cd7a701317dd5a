"""Which checkout holds which index: kept for the machine in /run, so that it is forgotten with a reboot.

Two checkouts on one machine get different indices, hence different addresses, namespaces and groups, and do not meet.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster import files, network, progress
from localcluster.faults import Fault
from localcluster.layout import MAX_INDEX, Layout

OWNERS = Path("/run/videogen-localcluster.json")
OWNERS_LOCK = Path("/run/videogen-localcluster.lock")


def own_index(repo: Path) -> int | None:
    """The index this checkout's state was made for; None if it has none yet."""
    found = files.read_json(repo / ".localcluster" / "state" / "index.json")
    return found["index"] if isinstance(found, dict) else None


def known_layout(repo: Path) -> Layout:
    """The layout of this checkout, for commands that only look."""
    return Layout(repo=repo, index=own_index(repo) or 0)


def acquire(repo: Path) -> Layout:
    """Claims an index for this checkout: the one its state has, or the lowest that is free."""
    with _locked(OWNERS_LOCK):
        owners = _owners()
        index = own_index(repo)
        if index is None:
            index = _free_index(repo, owners)
        holder = owners.get(str(index))
        if holder not in (None, str(repo)):
            raise Fault(
                f"the cluster of {holder} now has the addresses that this checkout's state was made for; "
                f"stop it ({holder}/localcluster/localcluster down) or start afresh here (down --purge, then up)"
            )
        owners[str(index)] = str(repo)
        files.write_json(OWNERS, owners)
        files.write_json(repo / ".localcluster" / "state" / "index.json", {"index": index})
    return Layout(repo=repo, index=index)


def other_holder(layout: Layout) -> str:
    """The other checkout that holds this one's index by now; "" if none does."""
    with _locked(OWNERS_LOCK):
        holder = _owners().get(str(layout.index), "")
    return "" if holder == str(layout.repo) else holder


def release(layout: Layout) -> None:
    """Gives the index back to the machine."""
    with _locked(OWNERS_LOCK):
        owners = {key: path for key, path in _owners().items() if path != str(layout.repo)}
        files.write_json(OWNERS, owners)


def _owners() -> dict[str, str]:
    """Index -> checkout, without those that were deleted from the disk."""
    found = files.read_json(OWNERS)
    return {key: path for key, path in (found or {}).items() if Path(path, ".localcluster").is_dir()}


def _free_index(repo: Path, owners: dict[str, str]) -> int:
    for index in range(MAX_INDEX):
        layout = Layout(repo=repo, index=index)
        prefixes = [layout.pod_prefix, layout.service_prefix]
        if owners.get(str(index)) in (None, str(repo)) and not network.routed(prefixes, layout.host_link):
            return index
    raise Fault(f"all {MAX_INDEX} address blocks are taken, by clusters ({OWNERS}) or by routes of this machine")


@contextmanager
def exclusive(repo: Path) -> Iterator[None]:
    """Lets one changing command at a time work on this checkout; others wait."""
    home = repo / ".localcluster"
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "lock"):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Not inherited by the parts that are started: they would hold the lock for ever.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another localcluster command is at work here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
