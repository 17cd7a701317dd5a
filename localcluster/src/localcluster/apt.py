"""Debian packages: installed only if missing, and never allowed to start services of their own."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from localcluster import progress
from localcluster.commands import run, succeeds
from localcluster.faults import Fault
from localcluster.versions import APT_CGO, APT_PACKAGES, APT_TOOLS

POLICY = Path("/usr/sbin/policy-rc.d")
# Debian's convention: 101 forbids a package's scripts to start its service.
FORBID = "#!/bin/sh\nexit 101\n"
SERVICES = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")


def ensure(packages: Mapping[str, str] = APT_PACKAGES) -> None:
    """Installs which of the packages are missing, each known by a file; a Fault names what cannot be installed."""
    missing = [package for package, file in packages.items() if not Path(file).exists()]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        absent = ", ".join(f"{package} ({packages[package]})" for package in missing)
        raise Fault(f"missing: {absent}; install these packages, or run this as root on Debian, where it installs them itself")
    install(missing)


def ensure_compiler() -> None:
    """What cgo calls."""
    ensure({package: APT_PACKAGES[package] for package in APT_CGO})


def ensure_tools() -> None:
    """What checks and tests call; beside Debian's Python also its library, which Triton's Python backend links."""
    packages = {package: APT_PACKAGES[package] for package in APT_TOOLS}
    python = f"python3.{sys.version_info.minor}"
    if Path("/usr/bin", python).exists():
        packages[f"lib{python}"] = f"/usr/lib/{platform.machine()}-linux-gnu/lib{python}.so.1.0"
    ensure(packages)


def install(packages: list[str]) -> None:
    """Installs packages without recommendations and without starting anything."""
    with progress.step(f"apt packages {' '.join(packages)}"), _services_stay_down():
        env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-q"], env=env)
        # A dpkg that was interrupted refuses everything else until it has been finished.
        run(["dpkg", "--configure", "-a"], env=env)
        run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], env=env)
    for service in SERVICES:
        # We run these programs ourselves; at the next boot Debian's own would come up beside ours.
        if service in packages and Path("/run/systemd/system").exists():
            succeeds(["systemctl", "disable", "--now", service])


@contextmanager
def _services_stay_down() -> Iterator[None]:
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text(FORBID)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)
