"""What a hostile viewer can do through the gateway: the operator's own route and policy in a real Envoy Gateway with its Envoy."""

import json
import subprocess
import sys
from typing import Any

import pytest

from localcluster.images import envoy_program
from localcluster.versions import ENVOY
from videogen_operator.kinds.model_release import route
from videogen_operator.kinds.model_release.observed import Observed, observe
from videogen_operator.plan import Key
from videogen_testing import gateway_files
from videogen_testing.control_plane import BINARIES, ROOT
from videogen_testing.gateway_attack import BOMB, ENCODINGS, MANY, OTHER_PATHS
from videogen_testing.releases import NAMESPACE, SERVICE, SETTINGS, Objects, a_gateway, a_release

pytestmark = pytest.mark.timeout(7200)  # as end to end: the first one may wait until a cluster that is being built lets go of the tools
ROOM = 8  # requests that run, and as many that wait, of a release with a time-out of four seconds
INFER = "/v2/models/video/infer"


@pytest.fixture(scope="module")
def observed() -> Observed:
    serving = {"replicas": 1, "timeoutSeconds": 4}
    world = Objects(a_release(serving=serving, status={"rollout": {"state": "Stable"}}), a_gateway())
    found = observe(world, Key("ModelRelease", NAMESPACE, SERVICE))
    assert found
    return found


@pytest.fixture(scope="module")
def attacked(observed: Observed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each attack, made in a network of its own; Envoy Gateway and Envoy are those of the local cluster."""
    program = BINARIES / "envoy-gateway"
    if not program.exists():
        subprocess.run([ROOT / "localcluster/localcluster", "tools", "envoy-gateway"], check=True)
    envoys = ROOT / "build" / "envoy"
    envoy = envoys / "envoy-versions" / ENVOY / "bin" / "envoy"
    if not envoy.exists():
        envoy_program(envoy)
    folder = tmp_path_factory.mktemp("gateway")
    gateway_files.write(folder, observed, envoys, ENVOY, {})
    host = route.hostname(observed, SETTINGS)
    attack = f'ip link set lo up && exec "$0" -m videogen_testing.gateway_attack {folder} {program} {host}'
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "PYTHONPATH": ":".join(filter(None, sys.path))}
    command = ["unshare", "--net", "sh", "-c", attack, sys.executable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (folder / "log").read_text()[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_video_and_the_readiness_are_answered(attacked: dict[str, Any]) -> None:
    assert attacked["accepted"]["answered"] == [200, 200]


def test_no_other_path_reaches_a_pod(attacked: dict[str, Any]) -> None:
    assert attacked["other paths"]["answered"] == {f"{method} {path}": 404 for method, path in OTHER_PATHS}
    assert attacked["other paths"]["heard"] == []


def test_a_body_up_to_the_limit_arrives_whole(attacked: dict[str, Any]) -> None:
    assert attacked["60 KiB"] == {"answered": 200, "heard": [{"path": INFER, "chunks": 0, "bytes": 60 << 10}]}


def test_of_a_larger_body_a_pod_hears_nothing(attacked: dict[str, Any]) -> None:
    assert attacked["70 KiB"] == {"answered": 413, "heard": []}
    assert attacked["200 MiB"]["answered"] in {413, 0}  # 0: closed while the viewer was still sending
    assert attacked["200 MiB"]["heard"] == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_compressed_body_arrives_as_bytes_that_no_server_inflates(attacked: dict[str, Any], encoding: str) -> None:
    """The limit counts what came. Triton believes the header: 46,705 bytes of gzip cost it 857 MiB of memory."""
    assert attacked[f"compressed with {encoding}"] == {"answered": 200, "heard": [{"path": INFER, "chunks": 0, "bytes": len(BOMB)}]}


def test_chunks_of_one_byte_arrive_as_one_body_or_not_at_all(attacked: dict[str, Any]) -> None:
    """600,000 of them kill Triton 2.51."""
    assert attacked["50,000 chunks"] == {"answered": 200, "heard": [{"path": INFER, "chunks": 0, "bytes": 50_000}]}
    assert attacked["600,000 chunks"]["answered"] in {413, 0}
    assert attacked["600,000 chunks"]["heard"] == []


def test_unfinished_uploads_fill_no_pod_and_end(attacked: dict[str, Any]) -> None:
    assert attacked["unfinished"] == {"answered": [408] * 20, "heard": []}


def test_more_requests_than_the_pods_can_answer_are_refused_at_once(attacked: dict[str, Any]) -> None:
    answered, heard = attacked["at once"]["answered"], attacked["at once"]["heard"]
    assert set(answered) <= {200, 503, 504}
    assert answered.count(503) >= MANY - 4 * ROOM  # each of Envoy's threads may have one more under way
    assert len(heard) <= MANY - answered.count(503)
