"""Who may ask for what: each verb of a request is a right of its own, on a real API server, as users who have it and who have not.

All users of `WRITER` may write our objects. `only-<verb>` may ask for one verb of one kind besides, `nobody` for none.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_operator.kinds.fine_tune_cycle.plan import RUN_NOW
from videogen_operator.kinds.model_release import requests
from videogen_operator.kinds.training_run.plan import RETRY
from videogen_testing.chart_rights import COLLECTIONS, PLACE, bind, rendered
from videogen_testing.control_plane import Api, ControlPlane, Refused, eventually
from videogen_testing.cycle_simulation import a_cycle
from videogen_testing.releases import a_release, name_of
from videogen_testing.runs import a_run

GROUP = "videogen.pib.gov.in"
EVERY = {"modelreleases": set(requests.VERBS), "trainingruns": {RETRY}, "finetunecycles": {RUN_NOW}}
VERBS = [(plural, verb) for plural, verbs in EVERY.items() for verb in sorted(verbs)]
NAMES = {"modelreleases": name_of("1.0.0"), "trainingruns": "run", "finetunecycles": "weekly"}
JUDGES = {"promote", "hold", "resume", "abort", "quarantine"}
ROLES: dict[str, Mapping[str, set[str]]] = {
    "edit": EVERY,
    "admin": EVERY,
    "view": {},
    "devops": EVERY,
    "ml-lead": EVERY | {"modelreleases": JUDGES | {"retry"}},
    "qa": {"modelreleases": JUDGES},
    "content-team": {"modelreleases": {"hold", "resume", "abort"}},
    "fact-checkers": {"modelreleases": {"hold", "abort"}},
}
MAY_CHANGE = {"edit", "admin", "devops", "ml-lead"}
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "any", "uid": "u"}
CHANGES: dict[str, dict[str, Any]] = {
    "the spec": {"spec": {"rollback": {"onAlert": False}}},
    "a label": {"metadata": {"labels": {"team": "video"}}},
    "another annotation": {"metadata": {"annotations": {"team": "video", ANNOTATION_REQUEST: "hold@1"}}},
    "an owner that takes it along": {"metadata": {"ownerReferences": [OWNER]}},
    "a finalizer that keeps it": {"metadata": {"finalizers": ["example.org/held"]}},
}


def manifest(namespace: str, plural: str, version: str = "1.0.0") -> dict[str, Any]:
    """An object as a user writes it."""
    kinds = {"modelreleases": a_release(version), "trainingruns": a_run("run"), "finetunecycles": a_cycle("weekly", suspend=True)}
    item: dict[str, Any] = kinds[plural]
    metadata = {"name": item["metadata"]["name"], "namespace": namespace}
    return {key: item[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": metadata}


def place(namespace: str, plural: str) -> str:
    return f"/apis/{GROUP}/v1alpha1/namespaces/{namespace}/{plural}"


def only(plural: str, verb: str) -> str:
    return f"only-{plural}-{verb}"


@pytest.fixture(scope="module")
def home(plane: ControlPlane) -> str:
    """A namespace with one object of each kind, the chart's roles, and users who have them."""
    api, name = plane.api, f"people-{uuid.uuid4().hex[:8]}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    for plural in EVERY:
        api.create(place(name, plural), manifest(name, plural))
    for item in json.loads(rendered(("aggregated-roles", "people-roles"), ())):
        api.apply(f"{COLLECTIONS['ClusterRole']}/{item['metadata']['name']}", item)  # other tests of this API server have them, too
    for role in ROLES:
        bind(api, name, f"{PLACE}-videogen-{role}", role)
    a_role(api, name, "writer", list(EVERY), ["get", "create", "update", "patch"], "nobody", *(only(*one) for one in VERBS))
    for plural, verb in VERBS:
        a_role(api, name, only(plural, verb), [f"{plural}/requests"], [verb], only(plural, verb))
    for plural, verb in VERBS:  # until the policies hold
        eventually(lambda: "needs the verb" in asks(plane, name, "nobody", plural, f"{verb}@1"))  # noqa: B023 - called at once
    return name


def a_role(api: Api, namespace: str, name: str, resources: list[str], verbs: list[str], *users: str) -> None:
    rules = [{"apiGroups": [GROUP], "resources": resources, "verbs": verbs}]
    api.create(COLLECTIONS["Role"].format(namespace), {"metadata": {"name": name}, "rules": rules})
    bind(api, namespace, name, *users, kind="Role")


def said(api: Api, verb: str, path: str, body: Any) -> str:
    """What the API server refuses it with, after its code; "" if it would do it. Nothing is done."""
    content = "application/merge-patch+json" if verb == "PATCH" else "application/json"
    try:
        api.request(verb, f"{path}?dryRun=All", body, content)
    except Refused as error:
        return f"{error.code} {json.loads(error.body)['message']}"
    return ""


def asks(plane: ControlPlane, namespace: str, user: str, plural: str, text: str | None) -> str:
    body = {"metadata": {"annotations": {ANNOTATION_REQUEST: text}}}
    return said(plane.api.as_user(user), "PATCH", f"{place(namespace, plural)}/{NAMES[plural]}", body)


@pytest.mark.parametrize(("plural", "verb"), VERBS)
def test_a_verb_is_asked_for_by_who_has_it_and_by_nobody_else(plane: ControlPlane, home: str, plural: str, verb: str) -> None:
    words = (
        f"the request {verb} needs the verb {verb} on {plural}/requests of group {GROUP} in namespace {home}, which nobody does not have"
    )
    eventually(lambda: words in asks(plane, home, "nobody", plural, f"{verb}@1"))
    refusal = asks(plane, home, "nobody", plural, f"{verb}@1")
    assert refusal.startswith("403 ")
    assert f"by binding a ClusterRole that has it, for example {PLACE}-videogen-devops" in refusal
    eventually(lambda: not asks(plane, home, only(plural, verb), plural, f"{verb}@1"))


@pytest.mark.parametrize(("plural", "verb"), VERBS)
def test_the_same_holds_for_an_object_that_is_made_with_a_request(plane: ControlPlane, home: str, plural: str, verb: str) -> None:
    item = manifest(home, plural, "2.0.0")
    item["metadata"] |= {"annotations": {ANNOTATION_REQUEST: f"{verb}@1"}}
    item["metadata"] |= {} if plural == "modelreleases" else {"name": "another"}

    def creates(user: str) -> str:
        return said(plane.api.as_user(user), "POST", place(home, plural), item)

    eventually(lambda: f"needs the verb {verb} on {plural}/requests" in creates("nobody"))
    eventually(lambda: not creates(only(plural, verb)))


@pytest.mark.parametrize("role", ROLES)
def test_the_charts_roles_may_ask_for(plane: ControlPlane, home: str, role: str) -> None:
    eventually(lambda: "" if "cannot get" in said(plane.api.as_user(role), "GET", f"{place(home, 'trainingruns')}/run", None) else "known")
    may: dict[str, set[str]] = {}
    for plural, verb in VERBS:
        if not asks(plane, home, role, plural, f"{verb}@1"):
            may.setdefault(plural, set()).add(verb)
    assert may == ROLES[role]


@pytest.mark.parametrize("role", sorted(ROLES.keys() - {"view"}))
def test_who_may_only_ask_changes_nothing_else(plane: ControlPlane, home: str, role: str) -> None:
    """An annotation is written by patch, which RBAC gives for the whole object."""
    eventually(lambda: not asks(plane, home, role, "modelreleases", "hold@1"))
    for what, change in CHANGES.items():
        refusal = said(plane.api.as_user(role), "PATCH", f"{place(home, 'modelreleases')}/{NAMES['modelreleases']}", change)
        if role in MAY_CHANGE:
            assert refusal == "", what
        else:
            assert f"needs the verb update on modelreleases in namespace {home}, which {role} does not have" in refusal, what


def test_a_request_that_is_not_answered_is_taken_back_only_by_who_could_have_asked(plane: ControlPlane, home: str) -> None:
    path, user = f"{place(home, 'modelreleases')}/{NAMES['modelreleases']}", only("modelreleases", "hold")
    words = "would take back a request abort that is not answered yet"
    plane.api.merge(path, {"metadata": {"annotations": {ANNOTATION_REQUEST: "abort@7"}}})
    eventually(lambda: words in asks(plane, home, user, "modelreleases", "hold@1"))
    assert words in asks(plane, home, user, "modelreleases", None)
    eventually(lambda: not asks(plane, home, only("modelreleases", "abort"), "modelreleases", None))
    assert said(plane.api.as_user(user), "PATCH", path, CHANGES["the spec"]) == "", "edits of others keep it"
    plane.api.merge(f"{path}/status", {"status": {"lastHandledRequest": "abort@7"}})
    assert [asks(plane, home, user, "modelreleases", text) for text in ("hold@1", None)] == ["", ""]


def test_a_long_request_is_answered_by_its_beginning(plane: ControlPlane, home: str) -> None:
    path, text = f"{place(home, 'finetunecycles')}/weekly", "run-now@" + "x" * 200
    plane.api.merge(path, {"metadata": {"annotations": {ANNOTATION_REQUEST: text}}})
    eventually(lambda: "would take back a request run-now" in asks(plane, home, "nobody", "finetunecycles", None))
    plane.api.merge(f"{path}/status", {"status": {"lastHandledRequest": text[:128]}})
    assert asks(plane, home, "nobody", "finetunecycles", None) == ""


def test_a_word_that_is_no_verb_is_let_through_for_the_operator_to_answer(plane: ControlPlane, home: str) -> None:
    eventually(lambda: not asks(plane, home, "nobody", "modelreleases", "promte@1"))


def test_a_run_retries_also_by_the_bare_word_so_that_is_guarded_too(plane: ControlPlane, home: str) -> None:
    for text in ("retry", "retry@", "retry@1@2"):
        eventually(lambda: "needs the verb retry" in asks(plane, home, "nobody", "trainingruns", text))  # noqa: B023 - called at once
