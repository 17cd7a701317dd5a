"""A real control plane for tests: etcd, kube-apiserver and kube-controller-manager on free loopback ports, without nodes.

Tests play what is absent: they create the pods that training-operator would create and write what a kubelet would.
"""

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from videogen_testing.patience import HANGS

T = TypeVar("T")
ROOT = Path(__file__).parents[3]
BINARIES = ROOT / ".localcluster" / "bin"
TOKEN = "test-administrator"
TRAINING_OPERATOR = "test-training-operator"  # the token of who makes trainers' pods where the tests play it
TRAINING_OPERATORS_ACCOUNT = "system:serviceaccount:kubeflow:training-operator"
SERVER_PORTS = 10_000, 32_768  # below net.ipv4.ip_local_port_range as Linux has it
_given: set[int] = set()
# Go collects garbage whenever the heap has doubled: all the time in a new API server, whose heap is small. Whom the API server asks
# (webhooks, pods) is on this machine, and no proxy of the environment reaches it.
SPARING = os.environ | {"GOGC": "400", "NO_PROXY": "*"}
CONTROLLERS = "garbage-collector-controller,namespace-controller,serviceaccount-controller"


class Refused(Exception):
    """The API server's answer was an error."""

    def __init__(self, code: int, body: str) -> None:
        super().__init__(f"{code}: {body[:600]}")
        self.code, self.body = code, body


class Api:
    """A few verbs of the Kubernetes API, as an administrator, who may act as another user. Paths as in the API reference."""

    def __init__(self, url: str, ca: Path, user: str = "") -> None:
        self.url, self._ca, self._user = url, ca, user
        self._context = ssl.create_default_context(cafile=str(ca))

    def as_user(self, name: str) -> "Api":
        """The same as another user, by impersonation; without groups."""
        return Api(self.url, self._ca, name)

    def request(self, verb: str, path: str, body: object = None, content: str = "application/json", token: str = TOKEN) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content}
        headers |= {"Impersonate-User": self._user} if self._user else {}
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=verb)
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=HANGS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode(errors="replace")) from None

    def text(self, path: str) -> str:
        """An answer that is no JSON."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=HANGS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode(errors="replace")) from None

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def find(self, path: str) -> Any:
        """The object, or None."""
        try:
            return self.get(path)
        except Refused as error:
            if error.code == 404:
                return None
            raise

    def history(self, path: str, since: str) -> list[Any]:
        """What happened to the objects of a collection after this resourceVersion, as watch events."""
        query = f"{path}?watch=true&resourceVersion={since}&timeoutSeconds=1"
        request = urllib.request.Request(self.url + query, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, context=self._context, timeout=HANGS) as answer:
            return [json.loads(line) for line in answer]

    def items(self, path: str) -> list[Any]:
        found: list[Any] = self.get(path)["items"]
        return found

    def create(self, path: str, manifest: Mapping[str, Any]) -> Any:
        return self.request("POST", path, manifest)

    def merge(self, path: str, patch: Mapping[str, Any]) -> Any:
        return self.request("PATCH", path, patch, "application/merge-patch+json")

    def apply(self, path: str, manifest: Mapping[str, Any]) -> Any:
        return self.request("PATCH", f"{path}?fieldManager=test&force=true", manifest, "application/apply-patch+yaml")

    def delete(self, path: str) -> None:
        self.request("DELETE", path)


class ControlPlane:
    """Started processes and how to reach them."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"https://127.0.0.1:{port}"
        self.ca = folder / "certificates" / "apiserver.crt"
        self.kubeconfig = self.write_kubeconfig("kubeconfig", self.url)

    @property
    def api(self) -> Api:
        return Api(self.url, self.ca)

    def write_kubeconfig(self, name: str, server: str, token: str = TOKEN) -> Path:
        """A kubeconfig for this server, or for a proxy in front of it."""
        cluster = {"server": server} | ({"certificate-authority": str(self.ca)} if server.startswith("https") else {})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path = self.folder / name
        path.write_text(json.dumps(config))
        return path


def status_of(url: str) -> int:
    """HTTP status of a GET; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def free_port() -> int:
    """A TCP port that nobody listens on now and that was not given before. The kernel gives its own connections ports above these:
    one that a connection has taken before the server started stays taken for as long as the connection is open.
    """
    while True:
        port = random.SystemRandom().randrange(*SERVER_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def eventually(ask: Callable[[], T], seconds: float = HANGS, every: float = 0.05) -> T:
    """The first true answer. AssertionError with the last answer after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer or time.monotonic() > end:
            assert answer, f"not within {seconds} s; the last answer was {answer!r}"
            return answer
        time.sleep(every)


@contextmanager
def process(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A child process in its own group, ended with the block."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    try:
        yield child
    finally:
        end(child)


def end(child: "subprocess.Popen[bytes]", with_signal: int = signal.SIGTERM, seconds: float = 10) -> int:
    """Signal a child's group and wait; SIGKILL after so many seconds."""
    if child.poll() is None:
        os.killpg(child.pid, with_signal)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(HANGS)
    return child.returncode


@contextmanager
def control_plane(folder: Path, *apiserver_flags: str) -> Iterator[ControlPlane]:
    """etcd, API server (with more flags, if given) and controller manager; ready when the block begins."""
    missing = [name for name in ("etcd", "kube-apiserver", "kube-controller-manager") if not (BINARIES / name).exists()]
    assert not missing, f"{BINARIES} lacks {', '.join(missing)}; build them with: python -m localcluster build"
    etcd, peer, port = free_port(), free_port(), free_port()
    key = folder / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens = {TOKEN: "administrator", TRAINING_OPERATOR: TRAINING_OPERATORS_ACCOUNT}
    (folder / "tokens.csv").write_text("".join(f'{token},{user},{user},"system:masters"\n' for token, user in tokens.items()))
    with (
        process(_etcd(folder, etcd, peer), folder / "etcd.log", SPARING),
        process([*_apiserver(folder, key, etcd, port), *apiserver_flags], folder / "apiserver.log", SPARING),
    ):
        plane = ControlPlane(folder, port)
        eventually(lambda: plane.ca.exists() and _is_ready(plane))
        with process(_controller_manager(plane, key), folder / "controller-manager.log", SPARING):
            eventually(lambda: plane.api.find("/api/v1/namespaces/default/serviceaccounts/default"))
            yield plane


def _etcd(folder: Path, port: int, peer: int) -> list[str]:
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return [
        str(BINARIES / "etcd"), f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync", "--log-level=warn",
    ]  # fmt: skip


def _apiserver(folder: Path, key: Path, etcd: int, port: int) -> list[str]:
    return [
        str(BINARIES / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{etcd}", f"--cert-dir={folder / 'certificates'}",
        "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={port}",
        "--authorization-mode=RBAC", f"--token-auth-file={folder / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.97.0.0/16", "--profiling=false",
    ]  # fmt: skip


def _controller_manager(plane: ControlPlane, key: Path) -> list[str]:
    return [
        str(BINARIES / "kube-controller-manager"), f"--kubeconfig={plane.kubeconfig}", f"--controllers={CONTROLLERS}",
        f"--service-account-private-key-file={key}", "--leader-elect=false", "--secure-port=0",
        "--concurrent-gc-syncs=4", "--concurrent-namespace-syncs=2",
    ]  # fmt: skip


def _is_ready(plane: ControlPlane) -> bool:
    """Whether all of the API server has started: the controller manager ends if that takes 10 s from its own start."""
    try:
        return plane.api.text("/healthz") == "ok"
    except (OSError, Refused):
        return False
