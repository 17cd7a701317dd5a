"""Building the Go parts: only what is missing or whose pins changed, one after another.

A binary is built beside its place and renamed, and its stamp is written last: a build that was killed half-way leaves
nothing that looks finished.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from localcluster import apt, files, progress
from localcluster.commands import run
from localcluster.faults import Fault
from localcluster.layout import Layout
from localcluster.versions import GO_PARTS, GoPart

HOURS = 3600


def stamp(layout: Layout, part: GoPart) -> str:
    """What a part's binaries depend on: pins, our own sources and flags."""
    folder = layout.go / part.module
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".mod", ".sum", ".go"))
    return files.digest(*(path.read_bytes() for path in sources), *arguments(part))


def arguments(part: GoPart) -> list[str]:
    """The flags of `go build`."""
    variables = " ".join(f"-X {name}={value}" for name, value in part.stamps.items())
    flags = ["-trimpath", f"-ldflags=-s -w {variables}".rstrip()]
    return [*flags, *([f"-tags={part.tags}"] if part.tags else [])]


def _stamp_file(layout: Layout, part: GoPart) -> Path:
    return layout.bin / f".{part.module}.stamp"


def current(layout: Layout, part: GoPart) -> bool:
    """Whether a part's binaries are there and belong to its pins."""
    file = _stamp_file(layout, part)
    built = all((layout.bin / name).exists() for name in part.packages)
    return built and file.exists() and file.read_text() == stamp(layout, part)


def missing(layout: Layout, modules: Collection[str] = ()) -> list[str]:
    """Names of the parts that have to be built: of a cluster's, or of those named."""
    return [part.module for part in _wanted(modules) if not current(layout, part)]


def _wanted(modules: Collection[str]) -> list[GoPart]:
    return [part for part in GO_PARTS if (part.module in modules if modules else part.in_cluster)]


def ensure(layout: Layout, modules: Collection[str] = ()) -> None:
    """Builds what is missing: of a cluster's parts, or of those named."""
    unknown = set(modules) - {part.module for part in GO_PARTS}
    if unknown:
        raise Fault(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(part.module for part in GO_PARTS)}")
    for part in _wanted(modules):
        if not current(layout, part):
            with progress.step(f"build {part.module} {part.version} (minutes, the first time)"):
                build(layout, part)


def build(layout: Layout, part: GoPart) -> None:
    """Builds all binaries of one part in one go, so that they share packages."""
    if part.cgo:
        apt.ensure_compiler()
    beside = layout.bin / f".building-{part.module}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    env = dict(os.environ) | {"CGO_ENABLED": "1" if part.cgo else "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    packages = list(part.packages.values())
    # The machine stays usable meanwhile.
    command = ["nice", "go", "build", *arguments(part), "-o", f"{beside}/", *packages]
    run(command, cwd=layout.go / part.module, env=env, timeout=2 * HOURS)
    for name, package in part.packages.items():
        (beside / _default_name(package)).replace(layout.bin / name)
    shutil.rmtree(beside)
    files.write(_stamp_file(layout, part), stamp(layout, part))


def _default_name(package: str) -> str:
    """What `go build` calls a package's binary: its last element, or the one before a major version."""
    last = package.rsplit("/", 1)[-1]
    return package.rsplit("/", 2)[-2] if last[0] == "v" and last[1:].isdigit() else last


def module_folder(layout: Layout, part: GoPart) -> Path:
    """Where Go unpacked a part's module: charts and manifests lie in it. Downloads it if need be."""
    folder = layout.go / part.module
    run(["go", "mod", "download", part.source], cwd=folder, timeout=HOURS)
    return Path(run(["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", part.source], cwd=folder).strip())


def program(layout: Layout, name: str) -> str:
    """The binary that was built here, else the one on PATH; empty if there is neither."""
    built = layout.bin / name
    return str(built) if built.exists() else shutil.which(name) or ""
