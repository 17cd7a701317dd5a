"""Somebody who may create pods is faster than training-operator, or than the ReplicaSet controller: with the replica's name, its labels and
its job as controller their pod would pass for it. The API server refuses it, whatever way its labels take. On a real API server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from videogen_testing.chart_rights import COLLECTIONS, PLACE, bind, install_policies
from videogen_testing.control_plane import TRAINING_OPERATOR, Api, ControlPlane, Refused, control_plane, eventually
from videogen_testing.runs import JOBS, pods_of
from videogen_testing.upstream_crds import install, own_definitions, pytorch_job_definition

SPACE = "films"
PODS, CORE = f"/api/v1/namespaces/{SPACE}/pods", f"/api/v1/namespaces/{SPACE}"
APPS = f"/apis/apps/v1/namespaces/{SPACE}"
LABEL_UID, LABEL_RELEASE = "videogen.pib.gov.in/run-uid", "videogen.pib.gov.in/release"
OURS = {"app.kubernetes.io/managed-by": "videogen-operator"}
OF_A_RUN = OURS | {
    "videogen.pib.gov.in/run": "run",
    LABEL_UID: "u",
    "videogen.pib.gov.in/phase": "train",
    "videogen.pib.gov.in/attempt": "1",
}
OF_A_RELEASE = OURS | {LABEL_RELEASE: "base-1.0.0", "videogen.pib.gov.in/service": "standard"}
OPERATOR = f"system:serviceaccount:{SPACE}:videogen-operator"
ONE_FOR_ALL = "system:kube-controller-manager"
CONTROLLER = "system:serviceaccount:kube-system:{}-controller".format
ONLY_TRAINING_OPERATOR = (
    f"a pod with the label {LABEL_UID} is made by system:serviceaccount:kubeflow:training-operator alone, for a PyTorchJob;"
    " leave the label out, or write a TrainingRun that gets such pods"
)
ONLY_CONTROLLERS = f"a pod with the label {LABEL_RELEASE} is made by {CONTROLLER('replicaset')} or {ONE_FOR_ALL} alone, for a ReplicaSet"
NO_LABEL = "a Binding gives a pod no label videogen.pib.gov.in/..., app.kubernetes.io/managed-by or training.kubeflow.org/...;"
STAY = "and then they stay; they cannot be added, changed or removed"
SAME_IMAGE = f"the image of a pod with the label {LABEL_UID} is the one that it was made with; delete the pod"
SPEC = {"containers": [{"name": "pytorch", "image": "stranger"}]}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With the chart's policies for pods as they are by default, and a stranger who may do what they like with pods and what makes pods."""
    with control_plane(tmp_path_factory.mktemp("who-makes-pods")) as started:
        install(started.api, [*own_definitions(), pytorch_job_definition()])
        install_policies(started.api, templates=("pods",))
        started.api.create("/api/v1/namespaces", {"metadata": {"name": SPACE}})
        every = {"verbs": ["*"], "resources": ["*"], "apiGroups": ["", "apps", "batch", "kubeflow.org"]}
        started.api.create(COLLECTIONS["ClusterRole"], {"metadata": {"name": "pods"}, "rules": [every]})
        accounts = [CONTROLLER(kind) for kind in ("replicaset", "deployment", "job")]
        bind(started.api, SPACE, "pods", "stranger", OPERATOR, ONE_FOR_ALL, *accounts)
        eventually(lambda: started.api.find(f"{CORE}/serviceaccounts/default"))
        stranger = started.api.as_user("stranger")
        eventually(lambda: ONLY_TRAINING_OPERATOR in refusal(stranger, PODS, a_trainer()))
        eventually(lambda: ONLY_CONTROLLERS in refusal(stranger, PODS, a_server()))
        bound = a_binding(f"{PODS}/none", **OF_A_RUN)
        eventually(lambda: NO_LABEL in refusal(stranger, f"{CORE}/bindings", bound))
        for path, item in ((JOBS.format(SPACE), a_job()), (f"{APPS}/deployments", a_workload()), (f"{APPS}/replicasets", a_workload())):
            eventually(lambda: "alone; leave the label out" in refusal(stranger, path, item))  # noqa: B023 - called at once
        yield started


@pytest.fixture
def stranger(plane: ControlPlane) -> Api:
    return plane.api.as_user("stranger")


def refusal(api: Api, path: str, item: Any, **how: str) -> str:
    """What the API server says to the creation of this; "" if it would make it."""
    try:
        api.request("POST", f"{path}?dryRun=All", item, **how)
    except Refused as error:
        return str(json.loads(error.body)["message"])
    return ""


def change(api: Api, path: str, patch: Any) -> str:
    """What the API server says to this change."""
    try:
        api.request("PATCH", f"{path}?dryRun=All", patch, "application/merge-patch+json")
    except Refused as error:
        return str(json.loads(error.body)["message"])
    return ""


def owner(kind: str, version: str = "apps/v1", uid: str = "uid-of-the-job") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "name": "run-train-1", "uid": uid, "controller": True}


def a_job() -> Any:
    """As the operator makes it."""
    replicas = {"replicas": 1, "template": {"metadata": {"labels": OF_A_RUN}, "spec": SPEC}}
    spec = {"pytorchReplicaSpecs": {"Master": replicas}}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "run-train-1", "labels": OF_A_RUN}, "spec": spec}


def a_trainer() -> Any:
    """The replica's pod to the letter: what training-operator would make."""
    (pod,) = pods_of(a_job() | {"metadata": {"name": "run-train-1", "uid": "uid-of-the-job"}})
    return pod


def a_server() -> Any:
    """A release's pod to the letter."""
    return {"metadata": {"name": "base-1-0-0-x-y", "labels": OF_A_RELEASE, "ownerReferences": [owner("ReplicaSet")]}, "spec": SPEC}


def a_workload(labels: Any = OF_A_RELEASE, *owners: dict[str, Any]) -> Any:
    """A Deployment or ReplicaSet of a release's pods."""
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": SPEC}}
    return {"metadata": {"name": "base-1-0-0", "ownerReferences": list(owners)}, "spec": spec}


def a_pod(api: Api, **labels: str) -> str:
    """The path of a pod that a stranger has made, with these labels."""
    made = api.create(PODS, {"metadata": {"generateName": "stranger-", "labels": labels}, "spec": SPEC})
    return f"{PODS}/{made['metadata']['name']}"


@pytest.fixture(scope="module")
def trainer(plane: ControlPlane) -> str:
    """The path of a pod that training-operator has made."""
    # Its owner exists, else the garbage collector takes it.
    item = a_job()
    item["metadata"]["name"] = "there-train-1"
    job = plane.api.as_user(OPERATOR).create(JOBS.format(SPACE), item)
    (pod,) = pods_of(job)
    plane.api.request("POST", PODS, pod, token=TRAINING_OPERATOR)
    return f"{PODS}/{pod['metadata']['name']}"


def test_a_strangers_pod_does_not_take_a_replicas_name(plane: ControlPlane, stranger: Api) -> None:
    said = refusal(stranger, PODS, a_trainer())
    assert said.endswith(f"denied request: {ONLY_TRAINING_OPERATOR}")
    assert "\n" not in said
    assert refusal(plane.api, PODS, a_trainer(), token=TRAINING_OPERATOR) == ""
    assert ONLY_TRAINING_OPERATOR in refusal(plane.api, PODS, a_trainer()), "administrators are nobody else"
    for account in (OPERATOR, CONTROLLER("replicaset"), CONTROLLER("job"), ONE_FOR_ALL):
        assert ONLY_TRAINING_OPERATOR in refusal(plane.api.as_user(account), PODS, a_trainer()), account


def test_training_operator_makes_none_for_a_job_of_another_kind(plane: ControlPlane) -> None:
    """Whose template is a stranger's, of a kind that no policy of ours looks at."""
    pod = a_trainer()
    pod["metadata"]["ownerReferences"] = [owner("MPIJob", "kubeflow.org/v1")]
    assert ONLY_TRAINING_OPERATOR in refusal(plane.api, PODS, pod, token=TRAINING_OPERATOR)


def test_a_strangers_pod_becomes_no_server(plane: ControlPlane, stranger: Api) -> None:
    """Without an owner it would be worse: the ReplicaSet would adopt it."""
    orphan = a_server()
    del orphan["metadata"]["ownerReferences"]
    for pod in (a_server(), orphan):
        said = refusal(stranger, PODS, pod)
        assert f"denied request: {ONLY_CONTROLLERS}" in said
        assert "\n" not in said
    for account in (CONTROLLER("replicaset"), ONE_FOR_ALL):
        assert refusal(plane.api.as_user(account), PODS, a_server()) == "", account


@pytest.mark.parametrize("kind", ["Job", "StatefulSet", "DaemonSet"])
def test_nor_do_the_pods_of_another_workload(plane: ControlPlane, kind: str) -> None:
    """Made by Kubernetes' own controllers of a stranger's template; where all of them share one account, their owner tells."""
    pod = a_server()
    pod["metadata"]["ownerReferences"] = [owner(kind)]
    for account in (CONTROLLER("job"), ONE_FOR_ALL):
        assert ONLY_CONTROLLERS in refusal(plane.api.as_user(account), PODS, pod), account


RELABELLED: dict[str, Callable[[str], tuple[str, Any]]] = {
    "the pod": lambda path: (path, {"metadata": {"labels": OF_A_RUN}}),
    "its status": lambda path: (f"{path}/status", {"metadata": {"labels": OF_A_RUN}}),
    "one label of a server": lambda path: (path, {"metadata": {"labels": {LABEL_RELEASE: "base-1.0.0"}}}),
}


@pytest.mark.parametrize("way", RELABELLED)
def test_a_pod_that_is_there_gets_no_such_label(stranger: Api, way: str) -> None:
    path, patch = RELABELLED[way](a_pod(stranger))
    assert STAY in change(stranger, path, patch)
    assert change(stranger, path, {"metadata": {"labels": {"team": "mine"}}}) == ""


BINDINGS = ["{}/binding", f"{CORE}/bindings"]


def a_binding(pod: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": pod.rpartition("/")[2], "labels": labels}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": {"kind": "Node", "name": "node"}}


@pytest.mark.parametrize("path", BINDINGS)
def test_nor_by_being_bound_to_a_node(stranger: Api, path: str) -> None:
    pod = a_pod(stranger)
    assert refusal(stranger, path.format(pod), a_binding(pod)) == ""
    assert refusal(stranger, path.format(pod), a_binding(pod, **{"topology.kubernetes.io/zone": "a"})) == ""
    assert NO_LABEL in refusal(stranger, path.format(pod), a_binding(pod, **OF_A_RUN))


@pytest.mark.parametrize("path", BINDINGS)
@pytest.mark.parametrize("label", [*OF_A_RUN, LABEL_RELEASE, "training.kubeflow.org/replica-index"])
def test_a_trainers_pod_is_bound_with_its_labels_as_they_are(
    plane: ControlPlane, stranger: Api, trainer: str, path: str, label: str
) -> None:
    """Not with a single one of them, either: it would take the place of the pod's."""
    binding = a_binding(trainer, **{label: "another"})
    for api in (stranger, plane.api):
        assert NO_LABEL in refusal(api, path.format(trainer), binding)
    assert refusal(stranger, path.format(trainer), a_binding(trainer)) == ""


CHANGES = {
    "another run": {LABEL_UID: "another"},
    "another attempt": {"videogen.pib.gov.in/attempt": "2"},
    "a server, too": {LABEL_RELEASE: "base-1.0.0"},
    "of no run, and so without its NetworkPolicy": {LABEL_UID: None},
    "of no phase, and so without its NetworkPolicy": {"videogen.pib.gov.in/phase": None},
}


@pytest.mark.parametrize("change_of", CHANGES)
def test_a_trainers_pod_keeps_its_labels(plane: ControlPlane, stranger: Api, trainer: str, change_of: str) -> None:
    patch = {"metadata": {"labels": CHANGES[change_of]}}
    for api in (stranger, plane.api, plane.api.as_user(OPERATOR)):
        assert STAY in change(api, trainer, patch)
        assert STAY in change(api, f"{trainer}/status", patch)


def test_a_trainers_pod_keeps_its_image_and_can_be_changed_else(stranger: Api, trainer: str) -> None:
    spec = {"containers": [{"name": "pytorch", "image": "another"}]}
    try:
        stranger.request("PATCH", f"{trainer}?dryRun=All", {"spec": spec}, "application/strategic-merge-patch+json")
    except Refused as error:
        said = str(error)
    assert SAME_IMAGE in said
    assert change(stranger, trainer, {"metadata": {"annotations": {"note": "x"}, "labels": {"team": "mine"}}}) == ""
    assert change(stranger, f"{trainer}/status", {"status": {"phase": "Running"}}) == ""


def test_a_job_of_such_pods_is_the_operators(plane: ControlPlane, stranger: Api) -> None:
    """Under the name that the operator will use next, with the run as its owner, and so on."""
    jobs, item = JOBS.format(SPACE), a_job()
    item["metadata"]["ownerReferences"] = [owner("TrainingRun", "videogen.pib.gov.in/v1alpha1", "u")]
    of_its_pods, of_itself = deepcopy(item), deepcopy(item)
    of_its_pods["metadata"]["labels"] = {}
    of_itself["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"] = {}
    for one in (item, of_its_pods, of_itself):
        said = refusal(stranger, jobs, one)
        assert said.endswith(
            f"a PyTorchJob with the label {LABEL_UID}, of itself or of its pods, is made by {OPERATOR.replace(SPACE, PLACE)} alone;"
            " leave the label out, or write a TrainingRun"
        ), said
    assert refusal(plane.api.as_user(OPERATOR), jobs, item) == ""


def test_a_strangers_own_job_gets_no_such_label_later(plane: ControlPlane, stranger: Api) -> None:
    jobs, item = JOBS.format(SPACE), a_job()
    item["metadata"] = {"name": "own"}
    del item["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]
    plane.api.as_user("stranger").create(jobs, item)
    assert "alone; leave the label out" in change(stranger, f"{jobs}/own", {"metadata": {"labels": OF_A_RUN}})
    template = {"metadata": {"labels": OF_A_RUN}}
    patch = {"spec": {"pytorchReplicaSpecs": {"Master": {"template": template}}}}
    assert "alone; leave the label out" in change(stranger, f"{jobs}/own", patch)
    assert change(stranger, f"{jobs}/own", {"spec": {"runPolicy": {"suspend": True}}}) == ""


def test_the_operators_job_is_suspended_by_kueue_and_keeps_its_label(plane: ControlPlane, stranger: Api, trainer: str) -> None:
    job = f"{JOBS.format(SPACE)}/there-train-1"
    assert plane.api.find(trainer)
    assert change(stranger, job, {"spec": {"runPolicy": {"suspend": True}}}) == ""
    assert "alone; leave the label out" in change(stranger, job, {"metadata": {"labels": {LABEL_UID: "another"}}})


@pytest.mark.parametrize(("plural", "maker"), [("deployments", OPERATOR), ("replicasets", CONTROLLER("deployment"))])
def test_what_makes_servers_is_made_by_the_operator_and_its_deployments(
    plane: ControlPlane, stranger: Api, plural: str, maker: str
) -> None:
    path, item = f"{APPS}/{plural}", a_workload(OF_A_RELEASE, owner("Deployment"))
    for account in ("stranger", CONTROLLER("replicaset")):
        assert f"is made by {maker.replace(SPACE, PLACE)}" in refusal(plane.api.as_user(account), path, item), account
    assert refusal(plane.api.as_user(maker), path, item) == ""
    stranger.create(path, a_workload({"app": "own"}))
    template = {"spec": {"template": {"metadata": {"labels": {LABEL_RELEASE: "base-1.0.0"}}}}}
    assert f"is made by {maker.replace(SPACE, PLACE)}" in change(stranger, f"{path}/base-1-0-0", template)
    assert change(stranger, f"{path}/base-1-0-0", {"spec": {"replicas": 2}}) == ""


def test_what_has_no_label_of_ours_is_everybodys(stranger: Api) -> None:
    pod = a_server()
    pod["metadata"]["labels"] = {"app": "own", "videogen.pib.gov.in/team": "mine"}
    assert refusal(stranger, PODS, pod) == ""
    assert refusal(stranger, f"{APPS}/deployments", a_workload({"app": "other"}) | {"metadata": {"name": "other"}}) == ""


def test_an_empty_label_is_one_too(stranger: Api) -> None:
    """Selectors ask whether a label is there: of a workload with an empty one the pods would be scraped and let through as ours."""
    job = a_job()
    job["metadata"]["labels"] = {}
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"] = {LABEL_UID: ""}
    workload = a_workload({"app": "mine", LABEL_RELEASE: ""})
    for path, item in ((JOBS.format(SPACE), job), (f"{APPS}/deployments", workload), (f"{APPS}/replicasets", workload)):
        assert "alone; leave the label out" in refusal(stranger, path, item), path
    for label in (LABEL_UID, LABEL_RELEASE):
        assert "alone, for a" in refusal(stranger, PODS, {"metadata": {"name": "mine", "labels": {label: ""}}, "spec": SPEC})


def test_nobody_hides_a_trainers_pod_from_the_operator(stranger: Api, trainer: str) -> None:
    for value in (None, "somebody"):
        assert STAY in change(stranger, trainer, {"metadata": {"labels": {"app.kubernetes.io/managed-by": value}}})


def test_nobody_answers_in_a_replicas_name_without_our_labels(plane: ControlPlane, stranger: Api) -> None:
    """training-operator's Service, by which workers find the first of them, selects by its own labels alone."""
    theirs = {f"training.kubeflow.org/{name}": value for name, value in REPLICA.items()}
    item = {"metadata": {"name": "mine", "labels": theirs}, "spec": SPEC}
    words = "a pod with the label training.kubeflow.org/operator-name=pytorchjob-controller is made by system:serviceaccount:kubeflow:training-operator alone"
    eventually(lambda: words in refusal(stranger, PODS, item))
    assert refusal(plane.api, PODS, item, token=TRAINING_OPERATOR) == ""
    mine = a_pod(stranger, app="mine")
    assert words in change(stranger, mine, {"metadata": {"labels": theirs}})
    assert change(stranger, mine, {"metadata": {"labels": {"app": "other"}}}) == ""


REPLICA = {"operator-name": "pytorchjob-controller", "job-name": "run-train-1", "replica-type": "worker", "replica-index": "0"}
