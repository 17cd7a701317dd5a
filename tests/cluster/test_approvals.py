"""Who may approve what, on a real API server: in one's own name, for a team whose right one has, and nothing else by the way.

Users who are in no role of the chart are named after what they have: `writer` may write runs, `asker` may only patch them.
"""

import json
import uuid
from typing import Any

import pytest

from videogen_api.approvals import ANNOTATION_APPROVE
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_testing.chart_rights import COLLECTIONS, PLACE, bind, rendered
from videogen_testing.control_plane import Api, ControlPlane, Refused, eventually
from videogen_testing.runs import RUNS, TRAIN, a_run

GROUP = "videogen.pib.gov.in"
DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
TEAMS = ("ml-lead", "content-team", "qa", "devops", "fact-checkers")
REVIEW: dict[str, Any] = {"name": "review", "task": "Approve", "approvals": [{"kind": "release", "team": "qa"}]}
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
NEEDS = "an approval for team {} needs the verb approve on trainingruns/approvals"
FORGED = "this approval is in the name of {}, and {} writes it; give it in your own name"


@pytest.fixture(scope="module")
def home(plane: ControlPlane) -> str:
    """A namespace with a run, one user for each role of the chart who is named after it, and others with Roles of their own."""
    api, name = plane.api, f"approvals-{uuid.uuid4().hex[:8]}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    api.create(RUNS.format(name), made(name))
    for item in json.loads(rendered(("aggregated-roles", "people-roles"), ())):
        api.apply(f"{COLLECTIONS['ClusterRole']}/{item['metadata']['name']}", item)  # other tests of this API server have them, too
    for team in (*TEAMS, "edit", "admin"):
        bind(api, name, f"{PLACE}-videogen-{team}", team)
    runs = {"apiGroups": [GROUP], "resources": ["trainingruns"]}
    right = {"apiGroups": [GROUP], "resources": ["trainingruns/approvals"], "verbs": ["approve"]}
    roles: dict[str, list[dict[str, Any]]] = {
        "writer": [runs | {"verbs": ["get", "create", "update", "patch"]}],
        "asker": [runs | {"verbs": ["get", "patch"]}],
        "brand": [runs | {"verbs": ["get", "patch"]}, right | {"resourceNames": ["brand"]}],
        "everybody": [runs | {"verbs": ["get", "patch"]}, right],
    }
    for role, rules in roles.items():
        api.create(COLLECTIONS["Role"].format(name), {"metadata": {"name": role}, "rules": rules})
        bind(api, name, role, role, kind="Role")
    eventually(lambda: NEEDS.format("qa") in said(plane, name, "writer", "release.qa", f"{DIGEST} writer"))
    for team in TEAMS:
        eventually(lambda: not said(plane, name, team, f"release.{team}", f"{DIGEST} {team}"))  # noqa: B023 - called at once
    return name


def made(namespace: str, name: str = "run", **annotations: str) -> dict[str, Any]:
    item = a_run(name, namespace, phases=[REVIEW, TRAIN])
    item["metadata"]["annotations"] = annotations
    return item


def refusal(api: Api, verb: str, path: str, body: Any, content: str = MERGE) -> str:
    """What the API server refuses it with; "" if it would do it. Nothing is done."""
    try:
        api.request(verb, f"{path}{'&' if '?' in path else '?'}dryRun=All", body, content)
    except Refused as error:
        return f"{error.code} {json.loads(error.body)['message']}"
    return ""


def path(namespace: str) -> str:
    return f"{RUNS.format(namespace)}/run"


def said(plane: ControlPlane, namespace: str, user: str, what: str, text: str | None, **others: Any) -> str:
    """What `user` is told who gives this approval."""
    body = {"metadata": {"annotations": {f"{ANNOTATION_APPROVE}{what}": text}}} | others
    return refusal(plane.api.as_user(user), "PATCH", path(namespace), body)


@pytest.mark.parametrize("team", TEAMS)
def test_a_team_approves_for_itself_and_for_no_other(plane: ControlPlane, home: str, team: str) -> None:
    assert said(plane, home, team, f"release.{team}", f"{DIGEST} {team}") == ""
    for other in set(TEAMS) - {team}:
        answer = said(plane, home, team, f"release.{other}", f"{DIGEST} {team}")
        assert answer.startswith("403 ")
        assert NEEDS.format(other) in answer
        assert f"with the resourceName {other} in namespace {home}, which {team} does not have" in answer


@pytest.mark.parametrize("user", ["writer", "asker", "edit", "admin"])
def test_who_writes_runs_does_not_approve_them(plane: ControlPlane, home: str, user: str) -> None:
    eventually(lambda: NEEDS.format("qa") in said(plane, home, user, "release.qa", f"{DIGEST} {user}"))


def test_a_right_of_ones_own_making_is_for_the_team_that_it_names_or_for_all(plane: ControlPlane, home: str) -> None:
    eventually(lambda: not said(plane, home, "brand", "logo.brand", f"{DIGEST} brand"))
    assert NEEDS.format("qa") in said(plane, home, "brand", "logo.qa", f"{DIGEST} brand")
    eventually(lambda: not said(plane, home, "everybody", "logo.qa", f"{DIGEST} everybody"))


@pytest.mark.parametrize("name", ["qa2", "ml-lead", " qa", "qa ", "q"])
def test_nobody_approves_in_another_name(plane: ControlPlane, home: str, name: str) -> None:
    answer = said(plane, home, "qa", "release.qa", f"{DIGEST} {name}")
    assert answer.startswith("403 ")
    assert FORGED.format(name, "qa") in answer


def test_who_may_not_approve_does_not_do_it_in_the_name_of_who_may(plane: ControlPlane, home: str) -> None:
    assert FORGED.format("qa", "writer") in said(plane, home, "writer", "release.qa", f"{DIGEST} qa")


@pytest.mark.parametrize("text", ["", "qa", DIGEST, f"{DIGEST}  ", f"{DIGEST[:-1]} qa", "yes"])
def test_an_approval_names_digest_and_user(plane: ControlPlane, home: str, text: str) -> None:
    answer = said(plane, home, "qa", "release.qa", text)
    assert 'the value of an approval is "<digest> <your user name>"' in answer or "in the name of  , and" in answer


@pytest.mark.parametrize("what", ["release", "release.qa.more"])
def test_an_approval_names_kind_and_team(plane: ControlPlane, home: str, what: str) -> None:
    assert "an approval is the annotation approve.videogen.pib.gov.in/<kind>.<team>" in said(plane, home, "qa", what, f"{DIGEST} qa")


def test_one_write_gives_one_approval(plane: ControlPlane, home: str) -> None:
    body = {"metadata": {"annotations": {f"{ANNOTATION_APPROVE}{kind}.qa": f"{DIGEST} qa" for kind in ("release", "data")}}}
    assert "one write gives one approval" in refusal(plane.api.as_user("qa"), "PATCH", path(home), body)


def test_who_only_approves_changes_nothing_else(plane: ControlPlane, home: str) -> None:
    words = "a change of anything but the annotation videogen.pib.gov.in/request needs the verb update on trainingruns"
    assert words in said(plane, home, "qa", "release.qa", f"{DIGEST} qa", spec={"suspend": True})
    assert words in refusal(plane.api.as_user("qa"), "PATCH", path(home), {"metadata": {"annotations": {"team": "qa"}}})


@pytest.mark.parametrize("manager", ["kubectl-client-side-apply", "videogen-operator", "somebody"])
def test_server_side_apply_gives_nothing_in_another_name_whatever_its_field_manager(plane: ControlPlane, home: str, manager: str) -> None:
    def applied(user: str, name: str) -> str:
        metadata = {"name": "run", "annotations": {f"{ANNOTATION_APPROVE}release.qa": f"{DIGEST} {name}"}}
        body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "TrainingRun", "metadata": metadata}
        return refusal(plane.api.as_user(user), "PATCH", f"{path(home)}?fieldManager={manager}&force=true", body, APPLY)

    assert FORGED.format("qa", "writer") in applied("writer", "qa")
    assert NEEDS.format("qa") in applied("writer", "writer")
    assert applied("qa", "qa") == ""


def test_an_approval_stays_through_edits_of_others_and_is_taken_away_by_who_may_update(plane: ControlPlane, home: str) -> None:
    name = f"kept-{uuid.uuid4().hex[:8]}"
    plane.api.create(RUNS.format(home), made(home, name))
    there, key = f"{RUNS.format(home)}/{name}", f"{ANNOTATION_APPROVE}release.qa"
    plane.api.as_user("qa").merge(there, {"metadata": {"annotations": {key: f"{DIGEST} qa"}}})
    suspended = plane.api.as_user("writer").merge(there, {"spec": {"suspend": True}})
    assert suspended["metadata"]["annotations"][key] == f"{DIGEST} qa"
    gone = {"metadata": {"annotations": {key: None}}}
    assert "needs the verb update" in refusal(plane.api.as_user("asker"), "PATCH", there, gone)
    assert refusal(plane.api.as_user("writer"), "PATCH", there, gone) == ""
    again = {"metadata": {"annotations": {key: f"{OTHER} writer"}}}
    assert NEEDS.format("qa") in refusal(plane.api.as_user("writer"), "PATCH", there, again)


def test_requests_and_approvals_are_rights_of_their_own(plane: ControlPlane, home: str) -> None:
    body = {"metadata": {"annotations": {ANNOTATION_REQUEST: "retry@1"}}}
    assert "the request retry needs the verb retry" in refusal(plane.api.as_user("qa"), "PATCH", path(home), body)
    assert refusal(plane.api.as_user("ml-lead"), "PATCH", path(home), body) == ""


def test_the_status_gives_no_approval(plane: ControlPlane, home: str) -> None:
    """What is written by way of the status leaves annotations alone."""
    body = {"metadata": {"annotations": {f"{ANNOTATION_APPROVE}release.qa": f"{DIGEST} qa"}}}
    answer = plane.api.request("PATCH", f"{path(home)}/status?dryRun=All", body, MERGE)
    assert f"{ANNOTATION_APPROVE}release.qa" not in answer["metadata"].get("annotations", {})


def test_what_an_object_is_created_with_is_let_through_and_bounded(plane: ControlPlane, home: str) -> None:
    """It names a digest of another object, so that it counts for nobody; a backup can be restored."""
    items = {f"{ANNOTATION_APPROVE}k{number}.qa": f"{DIGEST} qa" for number in range(17)}
    few = dict(list(items.items())[:16])
    writer = plane.api.as_user("writer")
    assert refusal(writer, "POST", RUNS.format(home), made(home, "restored", **few), "application/json") == ""
    answer = refusal(writer, "POST", RUNS.format(home), made(home, "flooded", **items), "application/json")
    assert "a TrainingRun has at most 16 annotations approve.videogen.pib.gov.in/" in answer
