"""Copying a folder by hard links, also where a mount stands between two folders of one filesystem.

buildah mounts its storage onto itself. The kernel refuses links from one mount to another, even of the same
filesystem; so both ends are reached through a fresh mount of the whole filesystem, in a private mount namespace.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from localcluster.commands import run

COPY_SECONDS = 3600
# view, filesystem, source and target inside it
LINK = 'mount --bind "$2" "$1" && exec cp --archive --link "$1$3/." "$1$4"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo: which folder of which filesystem is seen where."""

    device: str
    folder: str
    point: str


def copy(source: Path, target: Path, view: Path) -> None:
    """Makes `target` hold what `source` holds; by links if they share a filesystem, else by copying.

    `view` is an empty folder for the fresh mount.
    """
    table = mounts(Path("/proc/self/mountinfo").read_text())
    inside = [within(table, path.resolve()) for path in (source, target)]
    (device, from_path), (other, to_path) = inside
    whole = next((mount.point for mount in table if mount.device == device and mount.folder == "/"), None)
    if device != other or whole is None:
        run(["cp", "--archive", f"{source}/.", target], timeout=COPY_SECONDS)
        return
    view.mkdir(parents=True, exist_ok=True)
    words = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", LINK, "link"]
    run([*words, view, whole, from_path, to_path], timeout=COPY_SECONDS)


def mounts(mountinfo: str) -> list[Mount]:
    """All mounts, the latest last."""
    fields = [line.split() for line in mountinfo.splitlines()]
    return [Mount(device=line[2], folder=unescape(line[3]), point=unescape(line[4])) for line in fields]


def within(table: list[Mount], path: Path) -> tuple[str, str]:
    """The filesystem that a path belongs to, and the path seen from that filesystem's root."""
    text = str(path)
    covering = [mount for mount in table if mount.point in {"/", text} or text.startswith(f"{mount.point}/")]
    # The longest mount point; of several on one point the last hides the others.
    deepest = max(enumerate(covering), key=lambda entry: (len(entry[1].point), entry[0]))[1]
    # A path equal to the mount point is "." in it, which joining drops.
    return deepest.device, str(PurePosixPath(deepest.folder) / PurePosixPath(text).relative_to(deepest.point))


def is_mounted(folder: Path) -> bool:
    """Whether something is mounted at exactly this folder, be it from the same filesystem."""
    return any(mount.point == str(folder) for mount in mounts(Path("/proc/self/mountinfo").read_text()))


def unescape(field: str) -> str:
    """The kernel writes blanks and backslashes of a path as octal numbers."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
