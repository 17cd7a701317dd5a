"""The local cluster, used as one of somebody else's is: reached by a port-forward, given images by a command of the user."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from videogen_demo import delivery
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, CommandError
from videogen_testing.patience import HANGS

FORWARDING = """
import json, sys
from pathlib import Path
from videogen_demo import reach
from videogen_demo.kubectl import Cluster
print(reach.forward(Cluster(Path(sys.argv[1]) if sys.argv[1] else None), json.loads(sys.argv[2]), 80), flush=True)
sys.stdin.read()
"""


def test_a_forward_to_the_gateway_lives_as_long_as_the_process_that_asked_for_it(cluster: Cluster) -> None:
    service = '{"metadata": {"name": "videogen", "namespace": "envoy-gateway-system"}}'
    command = [sys.executable, "-c", FORWARDING, str(cluster.kubeconfig or ""), service]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdin and asking.stdout
        address = asking.stdout.readline().strip()
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(f"http://{address}/no-such-route", timeout=HANGS)
        with answer.value as refused:
            assert refused.code == 404
        (child,) = children(asking.pid)
        asking.stdin.close()
        assert asking.wait(HANGS) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """Processes whose parent it is."""
    stats = {int(path.parent.name): path.read_text() for path in Path("/proc").glob("[0-9]*/stat")}
    return [pid for pid, stat in stats.items() if re.search(rf"\) \w {parent} ", stat)]


def test_a_command_of_the_user_gets_the_images_that_were_built(installation: Installation, tmp_path: Path) -> None:
    script = f'echo "$@" > {tmp_path}/loaded'
    loader = f"sh -c {shlex.quote(script)} loader --cluster mine"
    images = delivery.to_other_cluster(installation.cluster, {"VIDEOGEN_LOAD": loader})
    assert images == installation.images
    assert (tmp_path / "loaded").read_text().split() == ["--cluster", "mine", *images.values()]


def test_a_registry_that_refuses_is_told_and_nothing_is_installed(installation: Installation, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="building the images failed"):
        delivery.to_other_cluster(installation.cluster, {"VIDEOGEN_REGISTRY": "127.0.0.1:1/videos"})
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("images: "))
    assert "127.0.0.1:1/videos/trainer" in line
    assert "connection refused" in line
