"""What is absent, broken or not meant for us: each has a reason and a next step in the status, and is never taken for good.

The tests play kubelet, scheduler, Deployment controller and gateway; the API server and the operator are real.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from videogen_operator.kinds.model_release.observed import slots
from videogen_operator.kinds.model_release.route import PERCENT
from videogen_operator.kinds.training_run.observed import LABEL_RUN_UID
from videogen_testing.chart_rights import operator_kubeconfig
from videogen_testing.control_plane import Api, ControlPlane, eventually, free_port
from videogen_testing.crash_story import GATEWAY, GATEWAYS
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.other_controllers import COLLECTIONS, route_taken
from videogen_testing.patience import HANGS
from videogen_testing.runs import DIGEST, JOBS, RUNS, TRAIN, a_claim, a_run, ended, first_job, passed, play, pods_of
from videogen_testing.upstream_crds import DEFINITIONS, gateway_definitions, install
from videogen_testing.webhook import an_alert, post, token_of

PYTORCH_JOBS = f"{DEFINITIONS}/pytorchjobs.kubeflow.org"
ROLLOUT = {
    "steps": [{"weightPercent": 50, "minimumRequests": 0, "minimumSeconds": 0}],
    "checks": [{"name": "errors", "metric": "ErrorRatio", "maximum": "0.01"}],
    "checkIntervalSeconds": 1,
}


def controlled_by(owner: dict[str, Any], kind: str) -> dict[str, Any]:
    metadata = owner["metadata"]
    return {"apiVersion": "apps/v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"], "controller": True}


class Scene:
    """One namespace with a claim; what stands in it, and what the operator says about it."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.core = f"/api/v1/namespaces/{namespace}"
        api.create(f"{self.core}/persistentvolumeclaims", a_claim())

    def path(self, kind: str, name: str = "") -> str:
        return COLLECTIONS[kind].format(self.namespace) + (f"/{name}" if name else "")

    def says(self, kind: str, name: str, seconds: float = HANGS, **wanted: str) -> str:
        """The message of the top condition, or of the one that is named, once it has the wanted reason."""
        top = wanted.get("condition") or ("Succeeded" if kind == "TrainingRun" else "Ready")

        def message() -> str | None:
            listed = self.api.get(self.path(kind, name)).get("status", {}).get("conditions", [])
            return next((one["message"] for one in listed if (one["type"], one["reason"]) == (top, wanted["reason"])), None)

        return str(eventually(message, seconds))

    def run(self, name: str, **spec: Any) -> dict[str, Any]:
        """A run with one Train phase; returns its job."""
        self.api.create(RUNS.format(self.namespace), a_run(name, self.namespace, **spec))
        return first_job(self.api, self.namespace, name)

    def release(self, version: str, **spec: Any) -> str:
        name = f"pib-videogen-videofusion-v{version}-base"
        digest = DIGEST[: -len(version)] + version.replace(".", "0")
        whole = {"service": "standard", "model": {"family": "VideoFusion", "version": version}, "serving": {"timeoutSeconds": 5}} | {
            "artifact": {"claimName": "models", "path": "bundles/x", "digest": digest}
        }
        manifest = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease", "metadata": {"name": name}, "spec": whole | spec}
        self.api.create(self.path("ModelRelease"), manifest)
        return name

    def make_ready(self, name: str) -> None:
        """Deployment controller: the pods of a release are ready."""
        child = name.replace(".", "-")
        eventually(lambda: self.api.find(self.path("Deployment", child)))
        status = {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}
        self.api.merge(self.path("Deployment", child) + "/status", {"status": status})

    def make_pod(self, name: str) -> str:
        """Kubernetes' controllers: a release's pod by way of a ReplicaSet. Returns the pod's name."""
        child = name.replace(".", "-")
        deployment = eventually(lambda: self.api.find(self.path("Deployment", child)))
        labels, pod = deployment["spec"]["template"]["metadata"]["labels"], {"containers": [{"name": "server", "image": "serving:7"}]}
        metadata = {"name": f"{child}-1", "labels": labels, "ownerReferences": [controlled_by(deployment, "Deployment")]}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
        sets = self.api.as_user("system:serviceaccount:kube-system:deployment-controller")
        replicas = sets.create(f"/apis/apps/v1/namespaces/{self.namespace}/replicasets", {"metadata": metadata, "spec": spec})
        metadata = {"name": f"{child}-1-1", "labels": labels, "ownerReferences": [controlled_by(replicas, "ReplicaSet")]}
        pods = self.api.as_user("system:serviceaccount:kube-system:replicaset-controller")
        pods.create(f"{self.core}/pods", {"metadata": metadata, "spec": pod})
        return str(metadata["name"])

    def weights(self) -> dict[str, int]:
        route = self.api.find(self.path("HTTPRoute", "standard")) or {"spec": {"rules": [{}]}}
        percent = ((one["name"], one["weight"] // PERCENT) for one in route["spec"]["rules"][-1].get("backendRefs", []))
        return {name: share for name, share in percent if share}

    def take_route(self) -> None:
        """Gateway: the route is taken as it is now."""
        route = eventually(lambda: self.api.find(self.path("HTTPRoute", "standard")))
        self.api.merge(self.path("HTTPRoute", "standard") + "/status", {"status": route_taken(route)})

    def state(self, name: str) -> str:
        return str((self.api.get(self.path("ModelRelease", name)).get("status", {}).get("rollout") or {}).get("state"))


@pytest.fixture
def scene(api: Api, namespace: str) -> Scene:
    install(api, gateway_definitions())
    return Scene(api, namespace)


@pytest.fixture
def operator(plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Its Prometheus does not answer; its gateway is that of the namespace."""
    own = {"KUBECONFIG": str(operator_kubeconfig(plane, namespace)), "VIDEOGEN_GATEWAY_NAMESPACE": namespace}
    own |= {"VIDEOGEN_PROMETHEUS_URL": f"http://127.0.0.1:{free_port()}"}
    with ExitStack() as stack:
        started = OperatorProcess(plane, namespace, tmp_path, stack, **own)
        yield started
    print(started.log.read_text()[-6000:])


@pytest.fixture
def node(api: Api, namespace: str) -> Iterator[str]:
    """A node with two GPUs; nodes belong to no namespace."""
    name, path = f"node-{namespace}", f"/api/v1/nodes/node-{namespace}"
    api.create("/api/v1/nodes", {"metadata": {"name": name}})
    has = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    api.merge(f"{path}/status", {"status": {"allocatable": has, "capacity": has, "conditions": [ready]}})
    api.merge(path, {"spec": {"taints": None}})
    yield name
    api.delete(path)


# Absent --------------------------------------------------------------------------------------------------------------


def test_without_training_operator_a_run_says_so_and_goes_on_once_it_is_installed(scene: Scene, operator: OperatorProcess) -> None:
    definition = scene.api.get(PYTORCH_JOBS)
    scene.api.delete(PYTORCH_JOBS)
    try:
        eventually(lambda: scene.api.find(PYTORCH_JOBS) is None)
        operator.start()
        scene.api.create(RUNS.format(scene.namespace), a_run("run", scene.namespace))
        message = scene.says("TrainingRun", "run", reason="TrainingOperatorNotInstalled")
        assert "install the Kubeflow training-operator" in message
    finally:
        install(
            scene.api,
            [{key: definition[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": definition["metadata"]["name"]}}],
        )
    first_job(scene.api, scene.namespace)


def test_what_a_run_lacks_is_said_with_the_next_step(scene: Scene, operator: OperatorProcess, node: str) -> None:
    operator.start()
    scene.api.create(RUNS.format(scene.namespace), a_run("claimless", scene.namespace, storage={"claimName": "nowhere"}))
    pulled = scene.run("pulled")
    huge = TRAIN | {"resources": {"limits": {"nvidia.com/gpu": 4}}}
    scene.api.create(RUNS.format(scene.namespace), a_run("huge", scene.namespace, phases=[huge]))
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}} | {"name": "pytorch", "image": "trainer:7"}
    play(scene.api, scene.namespace, pulled, {"phase": "Pending", "containerStatuses": [waiting | UNSTARTED]})
    preflight = eventually(lambda: scene.api.find(f"{JOBS.format(scene.namespace)}/huge-train-0"))
    play(scene.api, scene.namespace, preflight, ended(0, passed()))
    message = scene.says("TrainingRun", "claimless", reason="ClaimNotFound")
    assert "spec.storage.claimName names persistent volume claim nowhere" in message
    assert message.endswith("create it")
    message = scene.says("TrainingRun", "pulled", reason="ImageNotFound")
    assert "image trainer:7" in message
    assert "push the image, or correct trainer.image in the chart's values" in message
    message = scene.says("TrainingRun", "huge", reason="PreflightFailed")
    assert "spec.phases[0].resources: one worker asks for 4 GPUs and the largest node has 2" in message
    assert "add a larger node, or suspend the run and ask for less in the phase's resources" in message


def test_what_a_release_lacks_is_said_with_the_next_step(scene: Scene, operator: OperatorProcess) -> None:
    operator.start()
    claimless = scene.release("1.0.0", service="a", artifact={"claimName": "nowhere", "path": "x", "digest": DIGEST})
    unpulled, unrouted = scene.release("1.1.0", service="b"), scene.release("1.2.0", service="c")
    pod = scene.make_pod(unpulled)
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}} | {"name": "server", "image": "serving:7"}
    waiting |= UNSTARTED
    scene.api.merge(f"{scene.core}/pods/{pod}/status", {"status": {"phase": "Pending", "containerStatuses": [waiting]}})
    assert "PersistentVolumeClaim nowhere does not exist" in scene.says("ModelRelease", claimless, reason="ClaimNotFound")
    assert "image serving:7 cannot be pulled" in scene.says("ModelRelease", unpulled, reason="ImageNotFound")
    message = scene.says("ModelRelease", unrouted, reason="GatewayNotFound")
    assert f"Gateway {scene.namespace}/videogen does not exist" in message
    assert "create it, or set the chart's gateway.name and gateway.namespace" in message


def test_more_gpus_than_any_node_has_keep_a_release_in_the_queue(scene: Scene, operator: OperatorProcess, node: str) -> None:
    operator.start()
    name = scene.release("1.0.0", serving={"resources": {"limits": {"nvidia.com/gpu": 4}}})
    message = scene.says("ModelRelease", name, reason="InsufficientCapacity")
    assert "1 pods of 4 GPUs" in message
    assert f"{node} 2 GPUs" in message
    assert scene.api.items(scene.path("Deployment")) == []


# Broken and unwanted -------------------------------------------------------------------------------------------------


def test_without_prometheus_a_canary_waits_until_a_person_promotes_it(scene: Scene, operator: OperatorProcess) -> None:
    _, canary = canary_beside_stable(scene, operator)
    message = scene.says("ModelRelease", canary, condition="Reconciling", reason="ChecksInconclusive")
    assert "50 % of standard" in message
    time.sleep(5)  # five more rounds of checks
    assert scene.state(canary) == "Canary"
    assert set(scene.weights().values()) == {50}
    verdicts = scene.api.get(scene.path("ModelRelease", canary))["status"]["rollout"]["verdicts"]
    assert [one["verdict"] for one in verdicts] == ["Error"]
    assert "Prometheus cannot be read" in verdicts[0]["message"]
    scene.api.merge(scene.path("ModelRelease", canary), {"metadata": {"annotations": {"videogen.pib.gov.in/request": "promote@1"}}})
    eventually(lambda: scene.state(canary) == "Stable")


def test_an_alert_counts_only_for_a_release_that_serves_and_since_it_does(scene: Scene, operator: OperatorProcess) -> None:
    stable, canary = canary_beside_stable(scene, operator)
    queued = scene.release("1.2.0", rollout=ROLLOUT)
    eventually(lambda: scene.state(queued) == "Queued")
    now, past = datetime.now(UTC), datetime.now(UTC) - timedelta(hours=1)
    assert webhook(operator, an_alert(queued, scene.namespace, now)) == ["NotServing"]
    assert webhook(operator, an_alert(canary, scene.namespace, past)) == ["Stale"]
    assert webhook(operator, an_alert(canary, "elsewhere", now)) == ["UnknownRelease"]
    assert webhook(operator, an_alert(canary, scene.namespace, datetime.now(UTC)), token="alertmanager-secret") == ["UnknownAlert"]
    assert scene.state(canary) == "Canary"
    assert set(scene.weights().values()) == {50}
    assert webhook(operator, an_alert(canary, scene.namespace, datetime.now(UTC))) == ["RolledBack"]
    assert scene.weights() == {stable.replace(".", "-"): 100}
    metrics = operator.metrics()
    for result in ("NotServing", "Stale", "UnknownRelease", "UnknownAlert", "RolledBack"):
        assert f'videogen_alerts_total{{result="{result}"}} 1.0' in metrics


def test_a_huge_webhook_is_refused_and_the_next_one_is_heard(operator: OperatorProcess, scene: Scene) -> None:
    operator.start()
    assert post(operator.inbox_port, "/v1/alerts", "alertmanager-secret", b" " * 5 * 2**20)[0] == 413
    assert webhook(operator, an_alert("none", scene.namespace, datetime.now(UTC))) == ["UnknownRelease"]


def test_the_token_of_a_pod_that_is_gone_or_of_a_namesake_reports_nothing(scene: Scene, operator: OperatorProcess) -> None:
    operator.start()
    job = scene.run("run")
    (pod,) = play(scene.api, scene.namespace, job, {"phase": "Running"})
    token, report = token_of(scene.api, scene.namespace, pod), {"trainerStatus": {"progressPercentage": 10}}
    eventually(lambda: post(operator.inbox_port, "/v1/progress", token, report)[0] == 200)
    scene.api.request("DELETE", f"{scene.core}/pods/{pod}?gracePeriodSeconds=0")
    eventually(lambda: post(operator.inbox_port, "/v1/progress", token, report)[0] == 401)
    # No child of the job, which ends, and so nobody lets it have the label of the run's UID.
    labels = {name: text for name, text in job["metadata"]["labels"].items() if name != LABEL_RUN_UID}
    namesake_of_it = pods_of(job)[0] | {"metadata": {"name": pod, "labels": labels}}
    scene.api.create(f"{scene.core}/pods", namesake_of_it)
    namesake = token_of(scene.api, scene.namespace, pod)
    eventually(lambda: post(operator.inbox_port, "/v1/progress", namesake, report)[0] == 200)
    assert post(operator.inbox_port, "/v1/progress", token, report)[0] == 401


UNSTARTED = {"imageID": "", "ready": False, "restartCount": 0}


def canary_beside_stable(scene: Scene, operator: OperatorProcess) -> tuple[str, str]:
    """1.0.0 has all traffic, then 1.1.0 takes half of it."""
    scene.api.create(GATEWAYS.format(scene.namespace), GATEWAY)
    operator.start()
    stable = scene.release("1.0.0")
    scene.make_ready(stable)
    scene.take_route()
    eventually(lambda: scene.state(stable) == "Stable")
    canary = scene.release("1.1.0", rollout=ROLLOUT)
    scene.make_ready(canary)
    eventually(lambda: len(slots(scene.api.get(scene.path("HTTPRoute", "standard")))) == 2)  # it is listed before it takes traffic
    scene.take_route()
    eventually(lambda: scene.state(canary) == "Canary")
    eventually(lambda: set(scene.weights().values()) == {50})
    scene.take_route()
    return stable, canary


def webhook(operator: OperatorProcess, *alerts: dict[str, Any], token: str = "namespace-secret") -> list[str]:
    code, answer = post(operator.inbox_port, "/v1/alerts", token, {"version": "4", "alerts": alerts})
    assert code == 200, answer
    results: list[str] = answer["results"]
    return results
