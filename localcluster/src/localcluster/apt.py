"""Debian packages: installed only if missing, and never allowed to start services of their own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster import progress
from localcluster.commands import run, succeeds
from localcluster.versions import APT_PACKAGES

POLICY = Path("/usr/sbin/policy-rc.d")
# Debian's convention: 101 forbids a package's scripts to start its service.
FORBID = "#!/bin/sh\nexit 101\n"
SERVICES = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")


def ensure() -> None:
    """Installs what is missing."""
    missing = [package for package, file in APT_PACKAGES.items() if not Path(file).exists()]
    if missing:
        install(missing)


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
