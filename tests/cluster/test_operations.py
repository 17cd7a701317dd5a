"""What people run who operate the cluster: the support bundle and the commands of docs/runbooks.md.

What a maintainer needs is in the bundle, in no byte a secret, and it is made with any rights. The real script and kubectl ask a real
API server. Of the cluster's parts only the kubelet is played, which has the operator's log.
"""

import base64
import json
import os
import re
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from videogen_testing.chart_rights import COLLECTIONS
from videogen_testing.control_plane import BINARIES, ROOT, TOKEN, TRAINING_OPERATOR, Api, ControlPlane, control_plane, eventually
from videogen_testing.cycle_simulation import a_cycle
from videogen_testing.kubelet_logs import kubelet_with, node
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.patience import HANGS
from videogen_testing.releases import a_release
from videogen_testing.runs import JOBS, RUNS, a_claim, a_run
from videogen_testing.upstream_crds import gateway_definitions, install, kueue_definitions, own_definitions, pytorch_job_definition

SCRIPT = ROOT / "charts/videogen/files/support-bundle.sh"
SYSTEM, WATCHED, HIDDEN, STORED = "videogen-system", "films", "hidden", "stored"  # stored: no operator acts upon what is in it
ADDRESS = "198.18.0.1"  # of the pod (RFC 2544): the API server proxies nothing to 127.0.0.0/8
GROUP = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}"
OURS = {"app.kubernetes.io/managed-by": "videogen-operator", "videogen.pib.gov.in/run": "run", "videogen.pib.gov.in/run-uid": "1"}
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads"


@dataclass
class Secrets:
    """Every secret that was planted: none may be in a bundle."""

    planted: list[str] = field(default_factory=list)

    def one(self, form: str = "{}") -> str:
        """A new secret in a text."""
        self.planted.append(f"planted{uuid.uuid4().hex}")
        return form.format(self.planted[-1])


@dataclass(frozen=True)
class Bundle:
    """What the script said, and what it made."""

    code: int
    said: str
    files: dict[str, str]

    def objects(self, name: str) -> list[str]:
        """Names of the objects in a file."""
        return [item["metadata"]["name"] for item in json.loads(self.files[name])["items"]]

    @property
    def errors(self) -> list[str]:
        return self.files["errors.txt"].splitlines()

    @property
    def bytes(self) -> str:
        return "\n".join(text for item in self.files.items() for text in item)


def made_by(kubeconfig: Path, folder: Path, *arguments: str) -> Bundle:
    """Run the script as a user does."""
    archive = folder / f"{uuid.uuid4().hex}.tar.gz"
    environment = {"PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}", "KUBECONFIG": str(kubeconfig), "HOME": str(folder)}
    command = [str(SCRIPT), "--output", str(archive), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS, env=environment, cwd=folder)
    files: dict[str, str] = {}
    if archive.exists():
        assert archive.stat().st_mode & 0o077 == 0, "it is its maker's alone"
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                if content := tar.extractfile(member):
                    files[member.name.partition("/")[2]] = content.read().decode()
    return Bundle(result.returncode, result.stdout + result.stderr, files)


@dataclass(frozen=True)
class Scene:
    """A cluster with the chart, objects and secrets in every corner, and a bundle from before anything was installed."""

    plane: ControlPlane
    folder: Path
    secrets: Secrets
    bare: Bundle

    def bundle(self, *arguments: str, kubeconfig: Path | None = None) -> Bundle:
        return made_by(kubeconfig or self.plane.kubeconfig, self.folder, *arguments)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, secrets = tmp_path_factory.mktemp("support"), Secrets()
    logs: dict[tuple[str, bool], str] = {}
    with ExitStack() as stack:
        # So that pods need not wait for the accounts of their namespaces.
        plane = stack.enter_context(control_plane(folder, "--disable-admission-plugins=ServiceAccount"))
        bare = made_by(plane.kubeconfig, folder)
        install(plane.api, [*own_definitions(), pytorch_job_definition(), *gateway_definitions(), *kueue_definitions()])
        for name in (SYSTEM, WATCHED, HIDDEN, STORED):
            plane.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        port = stack.enter_context(kubelet_with(plane, logs))
        stack.enter_context(own_address())
        settings = {"VIDEOGEN_NAMESPACES": f"{WATCHED},{HIDDEN}", "VIDEOGEN_METRICS_HOST": ADDRESS}
        operator = OperatorProcess(plane, SYSTEM, folder, stack, **settings).start()
        plant(plane.api, secrets, operator, port)
        install_chart(plane)
        eventually(lambda: f'namespace="{HIDDEN}"' in operator.metrics() and f'namespace="{WATCHED}"' in operator.metrics())
        logs["videogen-operator-0", False] = operator.log.read_text() + log_of(secrets)
        logs["videogen-operator-0", True] = f"2026-01-01 00:00:00,000 CRITICAL videogen_operator: it ended; {secrets.one('token={}')}\n"
        logs["run-train-1-master-0", False] = "step 10\n"
        yield Scene(plane, folder, secrets, bare)


@contextmanager
def own_address() -> Iterator[None]:
    """An address of the loopback interface, which no other machine reaches."""
    where = [f"{ADDRESS}/32", "dev", "lo"]
    subprocess.run(["ip", "address", "replace", *where], check=True, timeout=HANGS)
    try:
        yield
    finally:
        subprocess.run(["ip", "address", "delete", *where], check=True, timeout=HANGS)


@pytest.fixture(scope="module")
def whole(scene: Scene) -> Bundle:
    """What an administrator gets, of all namespaces."""
    return scene.bundle()


def install_chart(plane: ControlPlane) -> None:
    """Everything that Helm renders, hooks too."""
    helm = [str(BINARIES / "helm"), "template", "videogen", str(ROOT / "charts/videogen"), "--namespace", SYSTEM]
    helm += ["--kube-version", "1.36.0", "--set", "alerts.configMap=true", "--set", "crds.install=false"]
    rendered = subprocess.run(helm, capture_output=True, text=True, check=True, timeout=HANGS)
    apply = [str(BINARIES / "kubectl"), "--kubeconfig", str(plane.kubeconfig), "apply", "--server-side", "--namespace", SYSTEM, "-f", "-"]
    subprocess.run(apply, input=rendered.stdout, capture_output=True, text=True, check=True, timeout=HANGS)


def plant(api: Api, secrets: Secrets, operator: OperatorProcess, port: int) -> None:
    """Before the policies of the chart are there, which would refuse some of it."""
    described = node("node", port, **{"example.org/join": secrets.one()})
    api.create("/api/v1/nodes", described)
    api.merge("/api/v1/nodes/node/status", {"status": described["status"]})
    operators_pod(api, operator.metrics_port, secrets)
    for namespace in (WATCHED, STORED):
        plant_strangers(api, secrets, namespace)
        plant_children(api, secrets, namespace)
    for namespace, run in ((WATCHED, "run"), (HIDDEN, "hidden-run"), (STORED, "run")):
        annotations = {"example.org/note": secrets.one(), "kubectl.kubernetes.io/last-applied-configuration": secrets.one('{{"a": "{}"}}')}
        item = a_run(run, namespace)
        api.create(RUNS.format(namespace), item | {"metadata": item["metadata"] | {"annotations": annotations}})
        api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    plant_words(api, secrets)


def operators_pod(api: Api, port: int, secrets: Secrets) -> None:
    """A pod of the chart's Deployment."""
    labels = {"app.kubernetes.io/name": "videogen-operator", "app.kubernetes.io/part-of": "videogen"}
    environment = [{"name": "VIDEOGEN_PROMETHEUS_HEADERS", "value": secrets.one('{{"x": "{}"}}')}]
    container = {"name": "operator", "image": "operator", "ports": [{"name": "metrics", "containerPort": port}], "env": environment}
    pods = f"/api/v1/namespaces/{SYSTEM}/pods"
    api.create(
        pods, {"metadata": {"name": "videogen-operator-0", "labels": labels}, "spec": {"nodeName": "node", "containers": [container]}}
    )
    running = {"name": "operator", "image": "operator", "imageID": "", "ready": True, "restartCount": 1, "state": {"running": {}}}
    status = {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}], "containerStatuses": [running]}
    api.merge(f"{pods}/videogen-operator-0/status", {"status": status})


def plant_strangers(api: Api, secrets: Secrets, namespace: str) -> None:
    """What is none of ours: never collected."""
    base = f"/api/v1/namespaces/{namespace}"
    api.create(f"{base}/secrets", {"metadata": {"name": "ours", "labels": OURS}, "stringData": {"token": secrets.one()}})
    api.create(f"{base}/configmaps", {"metadata": {"name": "foreign-map"}, "data": {"any": secrets.one()}})
    pod = {"containers": [{"name": "c", "image": "i", "env": [{"name": "ANY", "value": secrets.one()}]}]}
    api.create(f"{base}/pods", {"metadata": {"name": "foreign-pod"}, "spec": pod})
    plant_workload(api, namespace, "foreign-workload", "another", pod)
    event(api, namespace, "Pod", "foreign-pod", secrets.one())


def plant_children(api: Api, secrets: Secrets, namespace: str) -> None:
    """A job and what comes with it, with secrets wherever somebody might have put one."""
    base, spec = f"/api/v1/namespaces/{namespace}", pod_spec(secrets)
    replica = {"replicas": 1, "template": {"metadata": {"labels": OURS}, "spec": spec}}
    body = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "run-train-1", "labels": OURS}}
    job = api.create(JOBS.format(namespace), body | {"spec": {"pytorchReplicaSpecs": {"Master": replica}}})
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": "run-train-1", "uid": job["metadata"]["uid"], "controller": True}
    annotations = {
        "example.org/any": secrets.one(),
        "videogen.pib.gov.in/template": secrets.one('{{"env": [{{"name": "A", "value": "{}"}}]}}'),
    }
    metadata = {"name": "run-train-1-master-0", "labels": OURS, "annotations": annotations, "ownerReferences": [owner]}
    api.request("POST", f"{base}/pods", {"metadata": metadata, "spec": spec | {"nodeName": "node"}}, token=TRAINING_OPERATOR)
    plant_workload(api, namespace, "workload", job["metadata"]["uid"], spec)
    key = secrets.one("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----")
    content = {
        "tracking": {"password": secrets.one('a"{}'), "uri": secrets.one("https://user:{}@example.org")},
        "env": [{"name": "API_KEY", "value": secrets.one()}],
    }
    data = {"job.json": json.dumps(content), "indented.json": json.dumps(content, indent=2), "key.pem": key, "token": secrets.one()}
    api.create(f"{base}/configmaps", {"metadata": {"name": "run-train-1-file", "labels": OURS}, "data": data})
    for kind, labels in {"deployments": OURS, "replicasets": OURS}.items():
        selected = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod_spec(secrets)}}
        api.create(f"/apis/apps/v1/namespaces/{namespace}/{kind}", {"metadata": {"name": "server", "labels": labels}, "spec": selected})
    policy = {"metadata": {"name": "run-train-1", "labels": OURS}, "spec": {"podSelector": {}}}
    api.create(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", policy)
    headers = [{"name": "Authorization", "value": secrets.one("Custom {}")}]
    rule = {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}}]}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "standard", "labels": OURS}}
    api.create(ROUTES.format(namespace), route | {"spec": {"rules": [rule]}})
    event(api, namespace, "PyTorchJob", "run-train-1", secrets.one("refused: token={}"))
    event(api, namespace, "Pod", "run-train-1-master-7", "of a pod that is gone")


def plant_workload(api: Api, namespace: str, name: str, job_uid: str, spec: dict[str, Any]) -> None:
    """What Kueue makes of a job: it has the job's pods, with all of their environment."""
    pods = {"name": "main", "count": 1, "template": {"spec": {"restartPolicy": "Never"} | spec}}
    metadata = {"name": name, "labels": {"kueue.x-k8s.io/job-uid": job_uid}}
    kind = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload"}
    api.create(WORKLOADS.format(namespace), kind | {"metadata": metadata, "spec": {"podSets": [pods]}})


def pod_spec(secrets: Secrets) -> dict[str, Any]:
    """Environment, arguments and probes that were written as they should not be."""
    values = {
        "API_TOKEN": "{}", "DB_PASSWORD": "{}", "AWS_SECRET_ACCESS_KEY": "{}", "SSH_KEY": "{}", "HTTP_AUTH": "{}",
        "DATABASE": "postgres://user:{}@db/films", "SLASHES": "redis://:a/{}@cache", "QUERY": "https://example.org/x?a=1&access_token={}&b=2",
        "USER_ALONE": "https://{}@example.org/x",
        "SIGNED": "https://example.org/x?sig={}", "HEADER": "Authorization: Bearer {}", "PLAIN": "curl -H 'x-api-key: {}'",
        "NAKED": "hub login hf_{}", "QUOTED": "login --password='two words {}' --now", "IN_JSON": '{{"auths": {{"registry": {{"password": "{}"}}}}}}',
        "OF_YAML": "user: a\npassword: |\n  {}\n", "FOLDED": "token: >-\n  {}", "LISTED": '{{"tokens": ["a", "{}"], "steps": 10}}',
    }  # fmt: skip
    environment = [{"name": name, "value": secrets.one(form)} for name, form in values.items()]
    environment += [
        {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "a-secret", "key": "token"}}},
        {"name": "FINE", "value": "seen"},
    ]
    arguments = [secrets.one("--token={}"), "--password", secrets.one(), secrets.one('{{"password": "a \\" {}"}}'), "--steps", "10"]
    probe = {"httpGet": {"port": 80, "httpHeaders": [{"name": "Cookie", "value": secrets.one()}]}}
    return {"containers": [{"name": "trainer", "image": "i", "env": environment, "args": arguments, "livenessProbe": probe}]}


def plant_words(api: Api, secrets: Secrets) -> None:
    """Statuses that repeat what somebody else's program has said, in a namespace that no operator watches."""
    base = GROUP.format(STORED)
    said = f"{secrets.one('Get https://me:{}@example.org:')} {secrets.one('Authorization: Basic {}==')}"
    condition = {"type": "Succeeded", "status": "False", "reason": "Failed", "message": said, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    api.merge(f"{base}/trainingruns/run/status", {"status": {"observedGeneration": 1, "conditions": [condition]}})
    release = a_release("1.0.0")
    named = {"name": release["metadata"]["name"]}
    api.create(f"{base}/modelreleases", {key: release[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": named})
    api.create(f"{base}/finetunecycles", a_cycle("weekly", suspend=True) | {"metadata": {"name": "weekly"}})
    event(api, STORED, "TrainingRun", "run", secrets.one('said {{"secret": "{}"}}'))


def event(api: Api, namespace: str, kind: str, name: str, message: str) -> None:
    about = {"kind": kind, "namespace": namespace, "name": name}
    body = {"metadata": {"generateName": "event-"}, "involvedObject": about, "reason": "Seen", "message": message, "type": "Warning"}
    api.create(f"/api/v1/namespaces/{namespace}/events", body)


def log_of(secrets: Secrets) -> str:
    """What no operator of ours writes, and what it writes of other namespaces."""
    token = "eyJhbGciOiJSUzI1NiJ9.{}.signature"
    head = "2026-01-01 00:00:00,000 ERROR videogen_operator"
    return "\n".join((
        secrets.one(head + ".x: pod films/run: Authorization: Bearer {}"),
        secrets.one(head + ".x: pod films/run: " + token),
        secrets.one(head + ".x: pod films/run: {{'api_key': '{}', 'b': 1}}"),
        secrets.one(head + ".x: pod films/run: https://a:{}@example.org/"),
        head + ".x: pod films/run: a key follows",
        secrets.one("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----"),
        head + ".x: TrainingRun films/run: RUN-IS-SEEN",
        head + ".x: TrainingRun hidden/hidden-run: OTHER-IS-SEEN",
        "Traceback: HIDDEN-TRACEBACK",
        head + ".x: event of hidden-run is dropped: NAMELESS-IS-SEEN",
        head + ".api_server.resync: listing the watched objects failed: LIST-IS-SEEN",
        "",
    ))  # fmt: skip


def test_each_kind_is_in_the_bundle_of_an_administrator(whole: Bundle) -> None:
    found = whole
    assert (found.code, found.errors) == (0, []), found.said
    assert sorted(found.objects("objects/trainingruns.json")) == ["hidden-run", "run", "run"]
    expected = {
        "finetunecycles": "weekly", "modelreleases": a_release("1.0.0")["metadata"]["name"], "pytorchjobs": "run-train-1",
        "pods": "run-train-1-master-0", "deployments": "server", "replicasets": "server", "networkpolicies": "run-train-1",
        "httproutes": "standard", "configmaps": "run-train-1-file", "workloads-1": "workload", "persistentvolumeclaims": "models",
    }  # fmt: skip
    for file, name in expected.items():
        assert name in found.objects(f"objects/{file}.json"), file
    assert found.objects("nodes.json") == ["node"]
    assert found.objects("operator/pods.json") == ["videogen-operator-0"]
    assert "videogen-operator" in found.objects("operator/deployments.json")
    assert {"videogen-rules"} <= set(found.objects("operator/configmaps.json"))
    for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings", "clusterroles", "clusterrolebindings"):
        assert found.objects(f"chart/{kind}.json"), kind
    assert json.loads(found.files["operator/lease-videogen-operator.json"])["spec"]["holderIdentity"] == "operator-under-test"
    assert json.loads(found.files["versions.json"])["serverVersion"]["gitVersion"].startswith("v1.")
    assert "trainingruns.videogen.pib.gov.in" in found.files["definitions.txt"]
    assert "videogen_leader 1.0" in found.files["operator/metrics/videogen-operator-0.txt"]
    assert "leading as operator-under-test" in found.files["operator/logs/videogen-operator-0.log"]
    assert "it ended" in found.files["operator/logs/videogen-operator-0.previous.log"]
    assert "Pod/films/run-train-1-master-7" in found.files["objects/events.txt"], "its job is known"
    assert set(found.files["summary.txt"].partition("files:\n")[2].split()) == found.files.keys() - {"summary.txt"}


def test_no_byte_of_it_is_a_secret_and_the_rest_is_as_it_was(scene: Scene, whole: Bundle) -> None:
    found = whole
    everything = found.bytes
    for secret in scene.secrets.planted:
        encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
        assert secret not in everything, next(
            f"{name}: {line}" for name, text in found.files.items() for line in text.splitlines() if secret in line
        )
        assert encoded[:-2] not in everything
    assert "REDACTED" in everything
    for absent in ("foreign", 'managedFields": [', "private/image"):
        assert absent not in everything, absent
    trainer = next(pod for pod in json.loads(found.files["objects/pods.json"])["items"] if pod["metadata"]["namespace"] == WATCHED)["spec"][
        "containers"
    ][0]
    values = {one["name"]: one.get("value") for one in trainer["env"]}
    assert values["FINE"] == "seen"
    assert values["DATABASE"] == "postgres://REDACTED@db/films"
    assert trainer["args"][-2:] == ["--steps", "10"]
    assert next(one for one in trainer["env"] if one["name"] == "FROM")["valueFrom"]["secretKeyRef"] == {"name": "a-secret", "key": "token"}
    operator = json.loads(found.files["operator/deployments.json"])["items"][0]["spec"]["template"]["spec"]["containers"][0]
    assert {one["name"]: one.get("value") for one in operator["env"]}["VIDEOGEN_CONCURRENCY"] == "16"


def test_all_of_its_json_can_be_read(whole: Bundle) -> None:
    for name, text in whole.files.items():
        if name.endswith(".json"):
            json.loads(text)


def test_of_namespaces_that_were_not_named_nothing_is_in_it(scene: Scene) -> None:
    found = scene.bundle("--namespace", WATCHED, f"--namespace={STORED}")
    assert (found.code, found.errors) == (0, []), found.said
    assert found.objects("objects/films/trainingruns.json") == found.objects("objects/stored/trainingruns.json") == ["run"]
    settings = ("operator/deployments.json", "operator/pods.json")  # name the namespaces that are watched
    log = found.files["operator/logs/videogen-operator-0.log"]
    assert HIDDEN not in "".join(text for name, text in found.files.items() if name not in settings)
    assert [word for word in ("RUN-IS-SEEN", "LIST-IS-SEEN", "leading as") if word not in log] == []
    assert [word for word in ("OTHER-IS-SEEN", "HIDDEN-TRACEBACK", "NAMELESS-IS-SEEN") if word in log] == []
    assert "lines of other namespaces" in log
    metrics = found.files["operator/metrics/videogen-operator-0.txt"]
    assert 'namespace="films"' in metrics
    assert "videogen_leader" in metrics


def test_a_user_who_may_only_view_gets_a_part_and_the_reasons(scene: Scene) -> None:
    roles = ("system:aggregate-to-view", f"{SYSTEM}-videogen-view")  # what Kubernetes' controller makes of the role `view`
    for role in roles:
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        subjects = [{"kind": "User", "name": "viewer", "apiGroup": "rbac.authorization.k8s.io"}]
        scene.plane.api.create(
            COLLECTIONS["ClusterRoleBinding"], {"metadata": {"name": f"viewer-{role}"}, "roleRef": reference, "subjects": subjects}
        )
    viewer = scene.plane.api.as_user("viewer")
    eventually(lambda: may(viewer, "trainingruns.videogen.pib.gov.in") and may(viewer, "pods"))
    found = scene.bundle(kubeconfig=acting_as(scene.plane, "viewer"))
    assert found.code == 0, found.said
    assert f"{len(found.errors)} could not be read" in found.said
    assert sorted(found.objects("objects/trainingruns.json")) == ["hidden-run", "run", "run"]
    assert "RUN-IS-SEEN" in found.files["operator/logs/videogen-operator-0.log"]
    reasons = dict(line.split(": ", 1) for line in found.errors)
    for refused in ("nodes.json", "objects/pytorchjobs.json", "chart/clusterroles.json", "operator/metrics/videogen-operator-0.txt"):
        assert refused not in found.files
        assert "forbidden" in reasons[refused].lower(), refused
    assert not [secret for secret in scene.secrets.planted if secret in found.bytes]


def may(api: Api, resource: str) -> bool:
    name, _, group = resource.partition(".")
    asked = {"spec": {"resourceAttributes": {"verb": "list", "resource": name, "group": group}}}
    return bool(api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", asked)["status"]["allowed"])


def acting_as(plane: ControlPlane, user: str) -> Path:
    """A kubeconfig of another user."""
    path = plane.folder / f"kubeconfig-{user}"
    config = json.loads(plane.kubeconfig.read_text())
    config["users"] = [{"name": "test", "user": {"token": TOKEN, "as": user}}]
    path.write_text(json.dumps(config))
    return path


def test_it_works_before_anything_is_installed(scene: Scene) -> None:
    assert scene.bare.code == 0, scene.bare.said
    reasons = scene.bare.errors
    for missing in ("trainingruns", "httproutes", "pytorchjobs", "no pod of it is found in namespace videogen-system"):
        assert any(missing in reason for reason in reasons), missing
    assert scene.bare.objects("nodes.json") == []


def test_a_namespace_that_does_not_exist_is_said(scene: Scene) -> None:
    found = scene.bundle("--namespace", "nowhere")
    assert found.code == 0
    assert [line for line in found.errors if "nowhere" in line]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--everything",), "unknown argument --everything"),
        (("--namespace",), "--namespace needs a value"),
        (("--namespace", "Films"), "--namespace is 'Films'"),
        (("--namespace", "films -o yaml"), "expected the name of a namespace"),
        (("--operator-namespace=",), "--operator-namespace is ''"),
        (("--since", "yesterday"), "--since is 'yesterday'; expected a duration such as 90m"),
        (("--output", "/nowhere/at/all.tar.gz"), "no folder that you may write to"),
        (("--output", "."), "exists already"),
    ],
)
def test_what_it_does_not_understand_it_says(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=HANGS, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


def test_it_says_that_the_cluster_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config"}))
    found = made_by(tmp_path / "kubeconfig", tmp_path)
    assert (found.code, found.files) == (1, {})
    assert "the cluster cannot be asked" in found.said


def test_its_help_names_every_option() -> None:
    text = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True, check=True, timeout=HANGS).stdout
    assert all(option in text for option in ("--namespace", "--operator-namespace", "--since", "--output"))


RUNBOOKS = (ROOT / "docs/runbooks.md").read_text()
COMMANDS = [
    (alert, block)
    for alert, text in zip(*[iter(re.split(r"^## (\w+)\n", RUNBOOKS, flags=re.MULTILINE)[1:])] * 2, strict=True)
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
]
LABELS = {"operator": SYSTEM, "namespace": STORED, "release": a_release("1.0.0")["metadata"]["name"], "run": "run", "cycle": "weekly"}


@pytest.mark.parametrize(("alert", "block"), COMMANDS, ids=[f"{alert}-{number}" for number, (alert, _) in enumerate(COMMANDS)])
def test_the_commands_of_a_runbook_work(scene: Scene, alert: str, block: str) -> None:
    result = subprocess.run(
        ["bash", "-eu", "-c", block],
        capture_output=True, text=True, check=False, timeout=HANGS,
        env={"PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}", "KUBECONFIG": str(scene.plane.kubeconfig), "HOME": str(scene.folder)} | LABELS,
    )  # fmt: skip
    assert result.returncode == 0, f"{alert}: {result.stdout}{result.stderr}"
