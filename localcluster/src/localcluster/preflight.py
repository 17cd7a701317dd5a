"""What has to be there before anything is started, each checked once and told in one sentence."""

import os
import re
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from localcluster import build
from localcluster.commands import run
from localcluster.faults import Fault
from localcluster.layout import Layout

OLDEST_PYTHON = (3, 11)
# From 1.21 on, go fetches by itself the newer version that a module asks for.
OLDEST_GO = (1, 21)
FREE_GIB_TO_BUILD = 20
FREE_GIB_TO_RUN = 3
GIB = 1024**3


def check(layout: Layout) -> None:
    """Raises a Fault for the first thing that is missing."""
    if sys.platform != "linux":
        raise Fault("a local cluster needs Linux; point KUBECONFIG at another cluster and use install-addons")
    if sys.version_info < OLDEST_PYTHON:
        raise Fault(f"Python {sys.version.split()[0]} is too old; 3.11 or newer is needed")
    if os.geteuid() != 0:
        raise Fault("a local cluster starts containers and network namespaces: run this as root")
    if not shutil.which("apt-get"):
        raise Fault("apt-get is missing: this needs Debian 12 or a relative of it")
    if not (layout.go / "kubernetes" / "go.mod").exists():
        raise Fault(f"{layout.go} is missing: run localcluster from a checkout of the repository")
    check_go(layout)
    _check_disk(layout.repo, FREE_GIB_TO_BUILD if build.missing(layout) else FREE_GIB_TO_RUN)


def check_go(layout: Layout, modules: Collection[str] = ()) -> None:
    """Raises a Fault if some parts (a cluster's, or those named) have to be built and cannot be."""
    missing = build.missing(layout, modules)
    if not missing:
        return
    if not shutil.which("go"):
        raise Fault(f"Go 1.21 or newer is missing; it has to build {', '.join(missing)}")
    found = re.search(r"go(\d+)\.(\d+)", run(["go", "version"]))
    if not found or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise Fault(f"Go {found[0] if found else '?'} is too old; 1.21 or newer is needed")


def _check_disk(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free // GIB
    if free < needed:
        raise Fault(f"only {free} GiB are free below {path}; {needed} GiB are needed")
