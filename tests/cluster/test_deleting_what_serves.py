"""A release that serves, or stands by, is not deleted by anybody but with its namespace; everything else is. On a real API server."""

import json
import uuid

import pytest

from videogen_testing.chart_rights import COLLECTIONS
from videogen_testing.control_plane import Api, ControlPlane, Refused, eventually
from videogen_testing.releases import a_release, name_of

RELEASES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases"
GARBAGE_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
KEPT = {"Canary": 10, "Held": 10, "Stable": 100, "Standby": 0, "RolledBack": 5}  # the last one's traffic is still being taken back
GOES = ["Pending", "Gating", "Rejected", "Queued", "Starting", "Superseded", "RolledBack", "Withdrawn", "Failed"]
CAUSE = "of service standard and is not deleted; roll out another release first"
REMEDY = "videogen.pib.gov.in/request=withdraw@<id>"


def made(api: Api, namespace: str, state: str = "", weight: int = 0, version: str = "1.0.0") -> str:
    """The path of a new release whose status says this; without a state nobody has written one yet."""
    item = {key: a_release(version)[key] for key in ("apiVersion", "kind", "spec")}
    api.create(RELEASES.format(namespace), item | {"metadata": {"name": name_of(version), "namespace": namespace}})
    path = f"{RELEASES.format(namespace)}/{name_of(version)}"
    if state:
        api.merge(f"{path}/status", {"status": {"rollout": {"state": state}, "traffic": {"weightPercent": weight}}})
    return path


def refusal(api: Api, path: str, query: str = "?dryRun=All") -> str:
    try:
        api.request("DELETE", f"{path}{query}")
    except Refused as error:
        return f"{error.code} {json.loads(error.body)['message']}"
    return ""


@pytest.mark.parametrize("state", KEPT)
def test_what_serves_or_stands_by_is_not_deleted(api: Api, namespace: str, state: str) -> None:
    path = made(api, namespace, state, KEPT[state])
    eventually(lambda: CAUSE in refusal(api, path))
    said = refusal(api, path)
    assert said.startswith("403 ")
    assert f"{name_of('1.0.0')} is {state} with {KEPT[state]} % of the traffic {CAUSE}" in said
    assert f"kubectl -n {namespace} annotate modelrelease/{name_of('1.0.0')} --overwrite {REMEDY}" in said


def test_none_of_a_whole_collection_that_serves_is_deleted(api: Api, namespace: str) -> None:
    path = made(api, namespace, "Stable", 100)
    eventually(lambda: CAUSE in refusal(api, path))
    assert CAUSE in refusal(api, RELEASES.format(namespace), "")
    assert api.find(path)


def test_a_release_that_does_not_serve_is_deleted_whatever_its_state(api: Api, namespace: str) -> None:
    path = made(api, namespace)
    assert refusal(api, path) == "", "nobody has looked at it"
    for state in GOES:
        api.merge(f"{path}/status", {"status": {"rollout": {"state": state}, "traffic": {"weightPercent": 0}}})
        assert refusal(api, path) == "", state
    api.delete(path)


def test_a_namespace_takes_along_what_serves(api: Api, namespace: str) -> None:
    path = made(api, namespace, "Stable", 100)
    eventually(lambda: CAUSE in refusal(api, path))
    api.delete(f"/api/v1/namespaces/{namespace}")
    eventually(lambda: api.find(path) is None)


def test_in_a_namespace_that_is_being_deleted_people_delete_what_serves(api: Api, namespace: str) -> None:
    """For example its pods first, in order. The namespace waits for a finalizer of somebody else's."""
    path = made(api, namespace, "Stable", 100)
    api.merge(path, {"metadata": {"finalizers": ["example.org/held"]}})
    eventually(lambda: CAUSE in refusal(api, path))
    api.delete(f"/api/v1/namespaces/{namespace}")
    eventually(lambda: refusal(api, path) == "")
    api.merge(path, {"metadata": {"finalizers": None}})


def test_garbage_collection_is_not_hindered(plane: ControlPlane, api: Api, namespace: str) -> None:
    path = made(api, namespace, "Stable", 100)
    role = {"rules": [{"apiGroups": ["videogen.pib.gov.in"], "resources": ["modelreleases"], "verbs": ["delete"]}]}
    name = f"collector-{uuid.uuid4().hex[:8]}"
    api.create(COLLECTIONS["ClusterRole"], role | {"metadata": {"name": name}})
    subject = {"kind": "User", "name": "somebody", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject, subject | {"name": GARBAGE_COLLECTOR}]}
    api.create(COLLECTIONS["ClusterRoleBinding"], binding)
    eventually(lambda: CAUSE in refusal(plane.api.as_user("somebody"), path))
    eventually(lambda: refusal(plane.api.as_user(GARBAGE_COLLECTOR), path) == "")
