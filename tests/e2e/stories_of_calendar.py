"""A calendar with teams on the real cluster, in minutes instead of weeks: a weekly cycle fires by its own schedule, collects, trains, is judged,
waits for its approver, and releases; the next time it begins from that release, and waits until there are new clips.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from videogen_api.approvals import ANNOTATION_APPROVE
from videogen_demo import footage, install
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, CommandError, Manifest
from videogen_demo.load import Load
from videogen_demo.removal import remove_releases
from videogen_testing import stories
from videogen_testing.judged_runs import HOUR
from videogen_testing.patience import HANGS

CYCLE, SERVICE, FIRST, MORE = "weekly", "standard", 60, 24
APPROVER, WRITER = "qa-of-the-story", "ml-of-the-story"
ROLES = {APPROVER: "videogen-system-videogen-qa", WRITER: "videogen-system-videogen-ml-lead"}


def bindings(namespace: str) -> list[Manifest]:
    """Who is who: the chart's roles, for two people."""
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }
        for user, role in ROLES.items()
    ]


def the_cycle(namespace: str) -> Manifest:
    """Every minute, if the run before has ended and there are new clips."""
    first = stories.run(namespace, CYCLE, *_phases())
    template = {name: value for name, value in first["spec"].items() if name != "model"}
    spec = {
        "cadence": "Weekly",
        "schedule": "* * * * *",
        "timeZone": "Etc/UTC",
        "model": {"family": "VideoFusion"},
        "startFrom": {"service": SERVICE},
        "collect": [{"dataset": "shapes", "minimum": 8, "whenBelow": "Wait"}],
        "stages": [
            {"name": "curation", "owner": "content-team", "startDay": 0, "days": 2, "phases": ["curate"]},
            {"name": "fine-tuning", "owner": "ml-engineering", "startDay": 2, "days": 2, "phases": ["train"]},
            {"name": "evaluation", "owner": "qa", "startDay": 4, "days": 2, "phases": ["judge", "sign-off"]},
            {"name": "deployment", "owner": "devops", "startDay": 6, "days": 1, "phases": ["release"]},
        ],
        "runTemplate": {"spec": template},
    }
    return first | {"kind": "FineTuneCycle", "spec": spec}


def _phases() -> list[Manifest]:
    data = {"dataset": "shapes", "version": "$(run)"}
    sign_off = {"name": "sign-off", "task": "Approve", "approvals": [{"kind": "release", "team": "qa"}]}
    canary = {"steps": [{"weightPercent": 50, "minimumRequests": 2, "minimumSeconds": 2}]}
    return [
        stories.curate("raw", version="$(run)"),
        stories.train(data=[data | {"split": "Train"}]),
        stories.evaluate(data=[data | {"split": "HeldOut"}]),
        sign_off,
        stories.release(SERVICE, rollout=canary),
    ]


@pytest.fixture(scope="module")
def home(cluster: Cluster, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace with footage, people, and 1.0.0 in service."""
    name, folder = f"e2e-calendar-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("footage")
    footage.collect(folder, FIRST)
    cluster.apply(stories.namespace_manifest(name), stories.claim(name), *bindings(name))
    footage.upload(cluster, name, stories.CLAIM, folder, installation.images["trainer"])
    cluster.apply(stories.run(name, "first", stories.curate(), stories.train(), stories.evaluate(), stories.release(SERVICE)))
    assert stories.ended(cluster, name, "first")["status"] == "True"
    yield name
    cluster("delete", "finetunecycles", "--all", "-n", name)
    cluster("delete", "trainingruns", "--all", "-n", name, "--cascade=foreground", "--timeout=400s")
    remove_releases(cluster, name)
    cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def viewers(cluster: Cluster, home: str) -> Iterator[Load]:
    """Without whom no canary goes on."""
    load = Load(install.gateway_url(cluster), install.host_name(SERVICE, home), viewers=2).start()
    yield load
    load.stop()


def status(cluster: Cluster, namespace: str) -> Manifest:
    """Of the cycle."""
    found: Manifest = (cluster.get("finetunecycle", CYCLE, namespace) or {}).get("status") or {}
    return found


def run_at_work(cluster: Cluster, namespace: str, *before: str) -> str:
    """The cycle's run, other than those before."""

    def found() -> str | None:
        name = (status(cluster, namespace).get("current") or {}).get("run")
        return name if name not in before else None

    return str(cluster.wait("the cycle's next run", found, 300))


def signed_off(cluster: Cluster, namespace: str, name: str) -> str:
    """Let the approver sign the run off when it is the team's turn; others are refused. -> what the cycle said meanwhile"""

    def asked() -> Manifest | None:
        found = stories.phase(cluster, namespace, name, "sign-off")
        return found if found.get("waitingFor") and "subject" in found else None

    asks = cluster.wait(f"{name} to ask for its approval", asked, HOUR)
    (turn,) = cluster.wait(
        "the cycle to say whose turn it is", lambda: [_turn(cluster, namespace)] if _turn(cluster, namespace) else [], 120
    )
    annotation = f"{ANNOTATION_APPROVE}release.qa={asks['subject']['digest']}"
    with pytest.raises(CommandError, match="verb approve"):
        cluster("annotate", f"trainingrun/{name}", "-n", namespace, "--as", WRITER, f"{annotation} {WRITER}")
    cluster("annotate", f"trainingrun/{name}", "-n", namespace, "--as", APPROVER, f"{annotation} {APPROVER}")
    return str(turn["team"])


def _turn(cluster: Cluster, namespace: str) -> Manifest | None:
    current = status(cluster, namespace).get("current") or {}
    found: Manifest | None = current.get("waitingFor") if current.get("stage") == "evaluation" else None
    return found


def past(cluster: Cluster, namespace: str, name: str) -> Manifest:
    """The line of the cycle's history about this run, when there is one."""

    def found() -> Manifest | None:
        return next((one for one in status(cluster, namespace).get("history", []) if one.get("run") == name), None)

    line: Manifest = cluster.wait(f"{name} to end", found, HOUR)
    assert line["outcome"] == "Succeeded", line
    return line


def test_a_calendar_with_teams_runs_itself_twice(
    cluster: Cluster, installation: Installation, home: str, viewers: Load, tmp_path: Path
) -> None:
    cluster.apply(the_cycle(home))
    first = run_at_work(cluster, home)
    assert signed_off(cluster, home, first) == "qa"
    line = past(cluster, home, first)
    assert line["version"] == "1.0.1"
    assert line["datasets"][0]["newClips"]["found"] >= FIRST
    lineage = (cluster.get("modelrelease", line["release"], home) or {})["spec"]["lineage"]
    assert [(one["team"], one["user"]) for one in lineage["approvals"]] == [("qa", APPROVER)]

    second = run_at_work(cluster, home, first)
    cluster.wait("the second run to wait for clips", lambda: stories.state(cluster, home, second).get("reason") == "TooFewNewClips", HOUR)
    footage.collect(tmp_path, MORE, seed=1)
    (tmp_path / "raw/synthetic").rename(tmp_path / "raw/of-next-week")
    footage.upload(cluster, home, stories.CLAIM, tmp_path, installation.images["trainer"], ("raw/of-next-week",))
    for suspend in ("true", "false"):  # it looks at once then, and not within the hour
        patch = f'{{"spec": {{"suspend": {suspend}}}}}'
        cluster("patch", f"trainingrun/{second}", "-n", home, "--type=merge", "-p", patch)
        cluster.wait("it to be seen", partial(_is_suspended, cluster, home, second, suspend == "true"), HANGS)
    assert signed_off(cluster, home, second) == "qa"
    after = past(cluster, home, second)
    assert after["version"] == "1.0.2"
    begun = (cluster.get("trainingrun", second, home) or {})["spec"]["initFrom"]
    assert begun["release"] == line["release"], "it starts from what the first time released"
    assert viewers.failures() == []


def _is_suspended(cluster: Cluster, namespace: str, name: str, wanted: bool) -> bool:
    return (stories.state(cluster, namespace, name).get("reason") == "Suspended") == wanted
