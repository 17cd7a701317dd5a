"""Who may ask for what, as the chart renders it: the verbs are the operator's, and the README's table is what the roles say."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videogen_operator.kinds.fine_tune_cycle.plan import RUN_NOW
from videogen_operator.kinds.model_release import requests
from videogen_operator.kinds.training_run.plan import RETRY

Objects = list[dict[str, Any]]
Render = Callable[[dict[str, Any]], Objects]
CHART = Path(__file__).parents[2] / "charts/videogen"
TEAMS = {"ml-lead", "devops", "qa", "content-team", "fact-checkers"}
VERBS = {"finetunecycles": {RUN_NOW}, "modelreleases": set(requests.VERBS), "trainingruns": {RETRY}}
WRITE = {"create", "update", "patch", "delete", "deletecollection"}


def granted(objects: Objects, name: str) -> dict[str, set[str]]:
    """Resource -> verbs of a ClusterRole."""
    (role,) = [item for item in objects if item["kind"] == "ClusterRole" and item["metadata"]["name"] == f"system-videogen-{name}"]
    found: dict[str, set[str]] = {}
    for rule in role["rules"]:
        assert rule["apiGroups"] == ["videogen.pib.gov.in"]
        for resource in rule["resources"]:
            found.setdefault(resource, set()).update(rule["verbs"])
    return found


def asked(rights: dict[str, set[str]]) -> dict[str, set[str]]:
    return {resource.removesuffix("/requests"): verbs for resource, verbs in rights.items() if resource.endswith("/requests")}


def policies(objects: Objects) -> dict[str, dict[str, Any]]:
    found = {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "ValidatingAdmissionPolicy"}
    return {name.partition("-requests-")[2]: spec for name, spec in found.items() if "-requests-" in name}


def test_the_guarded_verbs_are_those_that_the_operator_knows(render: Render) -> None:
    known = {}
    for plural, spec in policies(render({})).items():
        (verbs,) = [variable["expression"] for variable in spec["variables"] if variable["name"] == "verbs"]
        known[plural] = set(json.loads(verbs.replace("'", '"')))
    assert known == VERBS


def test_each_team_approves_for_itself_and_the_clusters_own_roles_for_nobody(render: Render) -> None:
    objects = render({})
    found = {}
    for role in (item for item in objects if item["kind"] == "ClusterRole"):
        for rule in role["rules"]:
            if "approve" in rule["verbs"] or "trainingruns/approvals" in rule["resources"]:
                assert (rule["resources"], rule["verbs"]) == (["trainingruns/approvals"], ["approve"])
                found[role["metadata"]["name"].removeprefix("system-videogen-")] = rule["resourceNames"]
    assert found == {team: [team] for team in TEAMS}


def test_approvals_are_guarded_whatever_the_values_say(render: Render) -> None:
    off = {"admissionPolicy": {"enabled": False, "requests": False, "deletion": False}, "rbac": {"people": False}}
    names = {item["metadata"]["name"] for item in render(off) if item["kind"].startswith("ValidatingAdmissionPolicy")}
    assert any(name.endswith("-approvals") for name in names)


def test_an_expression_asks_the_authorizer_once(render: Render) -> None:
    """Two questions are all that the API server lets one expression pay for."""
    for spec in policies(render({})).values():
        assert [rule["expression"].count(".check(") for rule in spec["validations"]] == [1, 1, 1]


def test_the_clusters_edit_and_admin_roles_make_every_request_and_view_none(render: Render) -> None:
    objects = render({})
    assert asked(granted(objects, "edit")) == asked(granted(objects, "admin")) == VERBS
    assert asked(granted(objects, "view")) == {}


def test_requests_can_be_left_to_the_roles_for_people(render: Render) -> None:
    objects = render({"rbac": {"aggregateRequests": False}})
    assert [asked(granted(objects, role)) for role in ("edit", "admin", "view")] == [{}, {}, {}]
    assert granted(objects, "edit")["modelreleases"] >= WRITE
    assert asked(granted(objects, "devops")) == VERBS


def test_roles_for_people_are_bound_to_nobody_and_can_be_left_out(render: Render) -> None:
    names = {f"system-videogen-{team}" for team in TEAMS}
    objects = render({})
    assert names <= {item["metadata"]["name"] for item in objects if item["kind"] == "ClusterRole"}
    assert not names & {item["roleRef"]["name"] for item in objects if item["kind"].endswith("Binding") and "roleRef" in item}
    without = render({"rbac": {"people": False}})
    assert not names & {item["metadata"]["name"] for item in without}
    assert "videogen-devops" not in json.dumps(policies(without)), "a refusal names no role that there is not"


def test_the_readmes_table_is_what_the_roles_say(render: Render) -> None:
    objects, text = render({}), (CHART / "README.md").read_text()
    rows = re.findall(r"^\| `videogen-system-videogen-([a-z-]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert {row[0] for row in rows} == TEAMS
    for team, changes, of_releases, of_others in rows:
        rights = granted(objects, team)
        asks = asked(rights)
        assert (changes == "all three kinds") == all(rights[plural] >= WRITE for plural in VERBS), team
        assert (changes == "nothing") == (rights["modelreleases"] == {"get", "list", "watch", "patch"}), team
        assert (changes == "nothing") == (rights["trainingruns"] == {"get", "list", "watch", "patch"}), team
        words = VERBS["modelreleases"] if of_releases.startswith("all of them") else set(re.findall(r"`([a-z-]+)`", of_releases))
        assert asks["modelreleases"] == words, team
        assert rights["trainingruns/approvals"] == {"approve"}, team
        others = asks.get("trainingruns", set()) | asks.get("finetunecycles", set())
        assert others == set(re.findall(r"`([a-z-]+)`", of_others)), team
