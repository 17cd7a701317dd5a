"""Approvals in a closed loop: who is waited for, what counts, and when it counts no more.

That nobody writes an approval in another's name is the API server's affair (tests/cluster/test_approvals.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from videogen_api.approvals import ANNOTATION_APPROVE
from videogen_api.meta import API_VERSION
from videogen_api.training_run import PhaseStatus, Reason
from videogen_operator.kinds.training_run.step import HEALING_SECONDS
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, TUNE, ended, release_status, running, trained, tuned

APPROVE: dict[str, Any] = {"name": "review", "task": "Approve", "approvals": [{"kind": "release", "team": "qa"}]}
LAMBDA = {"kind": "lambda", "team": "ml-lead"}
OF_LAMBDA: dict[str, Any] = {"name": "ask", "task": "Approve", "approvals": [LAMBDA]}
OF_BOTH: dict[str, Any] = APPROVE | {"approvals": [{"kind": "release", "team": "qa"}, {"kind": "release", "team": "devops"}]}
JUDGED = EVALUATE | {"gates": []}
MEASURED = '{"reason": "Completed", "results": [{"metric": "FVD", "value": "100", "samples": 128}]}'
DONE = trained().model_dump_json(by_alias=True, exclude_none=True)


def begun(*phases: dict[str, Any], **run: Any) -> Simulation:
    sim = Simulation(phases=list(phases), **run)
    sim.settle()
    return sim


def of(sim: Simulation, name: str = "review") -> PhaseStatus:
    return next((one for one in sim.status().phases if one.name == name), PhaseStatus(name=name))


def said(sim: Simulation) -> str:
    return next(one.message for one in sim.status().conditions if one.type == "Succeeded")


def digest(sim: Simulation, name: str = "review") -> str:
    subject = of(sim, name).subject
    assert subject
    return subject.digest


def approve(sim: Simulation, user: str, what: str = "release.qa", name: str = "review", of_digest: str | None = None) -> None:
    """The API server has let `user` write this."""
    had = sim.run()["metadata"].get("annotations", {})
    sim.put(sim.run(), annotations=had | {f"{ANNOTATION_APPROVE}{what}": f"{of_digest or digest(sim, name)} {user}"})
    sim.settle()


def finish(sim: Simulation, report: str = DONE) -> None:
    sim.set_pods(ended(0, report))
    sim.settle()


def a_stable(share: str | None, family: str = "VideoFusion", since: str | None = None) -> dict[str, Any]:
    """The stable release of the service, as far as a run looks at it."""
    lineage = {"run": "before"} | ({"baseNoiseShares": [share]} if share else {}) | ({"baseNoiseSharesSince": since} if since else {})
    spec = {"service": "standard", "model": {"family": family, "version": "0.9.0"}, "lineage": lineage}
    metadata = {"name": "pib-videogen-videofusion-v0.9.0-base", "namespace": "models"}
    return {"apiVersion": API_VERSION, "kind": "ModelRelease", "metadata": metadata, "spec": spec, "status": release_status()}


def releasing(share: str, stable: dict[str, Any] | None, *before: dict[str, Any], **fusion: Any) -> Simulation:
    """A run with this λ that has come to its Release phase, or to what stands before it."""
    recipe = {"architecture": "Tiny", "resolution": {"height": 16, "width": 16}, "globalBatchSize": 4, "steps": 100}
    sim = Simulation(phases=[*before, TRAIN, JUDGED, RELEASE], recipe=recipe | {"videoFusion": {"baseNoiseShare": share} | fusion})
    if stable:
        sim.put(stable)
    sim.settle()
    return sim


def trains(sim: Simulation) -> None:
    finish(sim)
    finish(sim, MEASURED)


def released(sim: Simulation) -> bool:
    return any(one["spec"]["model"]["version"] == "1.0.0" for one in sim.world.list("ModelRelease"))


def test_a_run_that_waits_for_people_reads_like_this() -> None:
    sim = begun(APPROVE | {"owner": "ml-engineering", "window": {"deadlineSeconds": 600}}, TRAIN)
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)
    told = digest(sim)
    assert said(sim) == (
        "review of ml-engineering: qa must approve release; kubectl annotate vrun/run --overwrite"
        f" approve.videogen.pib.gov.in/release.qa='{told} <your user name>'"
    )
    (turn,) = of(sim).waiting_for
    assert (turn.team, turn.what) == ("qa", f"qa must approve release, for {told}")
    assert turn.due is not None
    assert sim.status().summary.team == "qa"  # type: ignore[union-attr]
    assert [one.type for one in sim.status().conditions] == ["Succeeded"], "it is neither reconciling nor stalled"
    assert sim.jobs() == ()
    assert f"WaitingForApproval: review of ml-engineering: qa must approve release, for {told}" in sim.log


def test_with_the_approval_the_run_goes_on_and_remembers_who_and_when() -> None:
    sim = begun(APPROVE, TRAIN)
    told = digest(sim)
    approve(sim, "alice@pib.gov.in")
    assert of(sim).outcome == Reason.COMPLETED
    assert of(sim).message == "approved: release by alice@pib.gov.in for qa"
    (given,) = of(sim).approvals
    assert (given.user, given.team, given.digest) == ("alice@pib.gov.in", "qa", told)
    assert sim.preflights() != (), "the preflight comes before the first attempt all the same"
    assert of(sim, "train").attempt == 1
    assert "Approved: review: release by alice@pib.gov.in for qa" in sim.log


@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, "sha256:" + "0" * 64 + " alice", "alice", ""])
def test_an_approval_of_another_digest_counts_for_nothing(text: str) -> None:
    sim = begun(APPROVE, TRAIN)
    sim.annotate(f"{ANNOTATION_APPROVE}release.qa", text)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)
    assert of(sim).approvals == []


def test_a_digest_is_of_one_run_and_cannot_be_known_before_it_exists() -> None:
    one, other = begun(APPROVE, TRAIN), Simulation(phases=[APPROVE, TRAIN])
    other.put(other.run(), uid="another")
    other.settle()
    assert digest(one) != digest(other)
    approve(other, "alice", of_digest=digest(one))
    assert other.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)


def test_two_approvals_mean_two_people() -> None:
    sim = begun(OF_BOTH, TRAIN)
    assert [turn.team for turn in of(sim).waiting_for] == ["qa", "devops"]
    approve(sim, "alice", "release.qa")
    assert [turn.team for turn in of(sim).waiting_for] == ["devops"]
    approve(sim, "alice", "release.devops")
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)
    assert "alice has approved already, and each approval is another person's" in said(sim)
    approve(sim, "bob", "release.devops")
    assert of(sim).outcome == Reason.COMPLETED
    assert [(one.team, one.user) for one in of(sim).approvals] == [("qa", "alice"), ("devops", "bob")]


def test_an_approval_that_is_taken_back_in_time_counts_no_more() -> None:
    sim = begun(OF_BOTH, TRAIN)
    approve(sim, "alice", "release.qa")
    sim.put(sim.run(), annotations={})
    sim.settle()
    assert of(sim).approvals == []
    assert [turn.team for turn in of(sim).waiting_for] == ["qa", "devops"]


def test_it_is_of_the_bundle_that_the_run_has_made_by_then() -> None:
    sim = begun(TRAIN, APPROVE, TRAIN | {"name": "more"})
    early = "sha256:" + "1" * 64
    sim.annotate(f"{ANNOTATION_APPROVE}release.qa", f"{early} alice")
    finish(sim)
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)
    other = begun(TRAIN, APPROVE, TRAIN | {"name": "more"})
    other.put(other.run(), uid=sim.run()["metadata"]["uid"])
    assert digest(sim) != early


def edit(sim: Simulation, **spec: Any) -> None:
    """What a person does who edits a run: suspend it, change it, let it go on."""
    sim.spec(suspend=True)
    sim.settle()
    sim.spec(**spec)
    sim.settle()
    sim.spec(suspend=False)
    sim.settle()


def test_a_changed_spec_voids_an_approval_that_was_given() -> None:
    sim = begun(APPROVE, TRAIN, TRAIN | {"name": "more"})
    before = digest(sim)
    approve(sim, "alice")
    sim.set_pods(running())
    sim.settle()
    edit(sim, phases=[APPROVE, TRAIN, TRAIN | {"name": "more", "train": {"steps": 7}}])
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)
    assert "ApprovalsVoid: review: the spec has changed since, so it is approved anew" in sim.log
    assert digest(sim) != before
    assert of(sim).approvals == []
    assert "that of before is for another digest" in said(sim)
    assert sim.jobs() == (), "what was at work waits"
    approve(sim, "alice")
    assert of(sim).outcome == Reason.COMPLETED
    assert of(sim, "train").attempt == 2, "and goes on from its checkpoint"


def test_what_is_operational_voids_nothing() -> None:
    sim = begun(APPROVE, TRAIN, TRAIN | {"name": "more"})
    approve(sim, "alice")
    more = {"attempts": 9, "owner": "qa", "window": {"deadlineSeconds": 9000}, "resources": {"limits": {"memory": "9Gi"}}}
    edit(sim, phases=[APPROVE, TRAIN | more, TRAIN | {"name": "more"}], ttlSecondsAfterFinished=5)
    assert of(sim).outcome == Reason.COMPLETED
    assert sim.top()[1] != Reason.WAITING_FOR_APPROVAL


def test_a_run_that_has_ended_is_not_asked_about_again() -> None:
    sim = begun(APPROVE, TRAIN)
    approve(sim, "alice")
    finish(sim)
    sim.spec(model={"family": "VideoFusion", "version": "1.0.1"})  # no API server lets it
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)


def test_an_approval_that_does_not_come_in_time_ends_the_run_and_says_whose_it_was() -> None:
    sim = begun(APPROVE | {"window": {"deadlineSeconds": 600}}, TRAIN)
    sim.step(600)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    assert "qa did not approve; the request retry@<id> waits as long again" in said(sim)


def test_an_approval_that_came_in_time_counts_however_late_it_is_seen() -> None:
    sim = begun(APPROVE | {"window": {"deadlineSeconds": 600}}, TRAIN)
    sim.annotate(f"{ANNOTATION_APPROVE}release.qa", f"{digest(sim)} alice")
    sim.step(6000)
    assert of(sim).outcome == Reason.COMPLETED


def test_a_suspended_run_asks_nobody() -> None:
    sim = begun(APPROVE, TRAIN, suspend=True)
    assert of(sim).waiting_for == []
    assert sim.top() == ("Unknown", Reason.SUSPENDED)
    sim.spec(suspend=False)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)


@pytest.mark.parametrize("seed", range(3))
def test_repeated_passes_write_nothing_new(seed: int) -> None:
    sim = Simulation(seed, phases=[OF_BOTH, TRAIN])
    sim.settle()
    before = sim.run()
    for _ in range(3):
        assert sim.step(1).statuses == ()
    assert sim.run() is before


# R-LAM


def test_the_stable_releases_share_needs_nobody() -> None:
    sim = releasing("0.7", a_stable("0.70"))
    trains(sim)
    assert released(sim)
    assert of(sim, "release").approvals == []


def test_the_usual_share_needs_nobody_where_nothing_serves_yet() -> None:
    sim = releasing("0.70", None)
    trains(sim)
    assert released(sim)


def test_another_share_than_the_stable_releases_waits_for_the_ml_lead_before_the_release() -> None:
    sim = releasing("0.72", a_stable("0.70"))
    trains(sim)
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)
    assert "λ is 0.72, and that of pib-videogen-videofusion-v0.9.0-base, stable in service standard, is 0.70; ml-lead must" in said(sim)
    assert [turn.team for turn in of(sim, "release").waiting_for] == ["ml-lead"]
    assert not released(sim)
    approve(sim, "lead", "lambda.ml-lead", "release")
    assert released(sim)
    assert [(one.team, one.user) for one in of(sim, "release").approvals] == [("ml-lead", "lead")]
    (made,) = [one for one in sim.world.list("ModelRelease") if one["spec"]["model"]["version"] == "1.0.0"]
    assert made["spec"]["lineage"]["baseNoiseShares"] == ["0.72"]


@pytest.mark.parametrize(
    ("share", "scenarios", "teams"),
    [
        ("0.70", {"baseScenario": "Standard"}, ["ml-lead"]),
        ("0.65", {"baseScenario": "HighDetail"}, ["ml-lead", "content-team"]),
        ("0.80", {"baseScenario": "TextHeavy"}, ["ml-lead"]),
        ("0.70", {"residualScenario": "Standard"}, ["ml-lead"]),
        ("0.60", {"residualScenario": "HighMotion"}, ["ml-lead", "content-team"]),
        ("0.75", {"residualScenario": "Static"}, ["ml-lead"]),
        ("0.65", {"baseScenario": "Standard", "residualScenario": "HighMotion"}, ["ml-lead", "content-team"]),
    ],
)
def test_the_documents_table_says_who_approves(share: str, scenarios: dict[str, str], teams: list[str]) -> None:
    sim = releasing(share, a_stable("0.71"), **scenarios)
    trains(sim)
    assert [turn.team for turn in of(sim, "release").waiting_for] == teams


def test_a_stable_release_that_does_not_tell_its_share_is_taken_for_another_one() -> None:
    sim = releasing("0.70", a_stable(None))
    trains(sim)
    assert "stable in service standard, is not known" in said(sim)


def test_one_of_another_family_has_none() -> None:
    sim = releasing("0.70", a_stable(None, "AlignYourLatents"))
    trains(sim)
    assert released(sim)


def test_who_was_asked_before_the_training_is_not_asked_again() -> None:
    sim = releasing("0.72", a_stable("0.70"), OF_LAMBDA)
    assert sim.jobs() == ()
    approve(sim, "lead", "lambda.ml-lead", "ask")
    trains(sim)
    assert released(sim)


def test_unless_a_tune_phase_has_chosen_another_share_since() -> None:
    sim = Simulation(phases=[OF_LAMBDA, TRAIN, TUNE, TRAIN | {"name": "again"}, JUDGED, RELEASE])
    sim.put(a_stable("0.70"))
    sim.settle()
    approve(sim, "lead", "lambda.ml-lead", "ask")
    finish(sim)
    finish(sim, tuned("0.75").model_dump_json(by_alias=True, exclude_none=True))
    finish(sim)
    finish(sim, MEASURED)
    assert "λ is 0.75, and that of" in said(sim)
    assert not released(sim)


def test_one_person_is_not_both_teams_though_asked_in_two_phases() -> None:
    sim = releasing("0.65", a_stable("0.70"), OF_LAMBDA, baseScenario="HighDetail")
    approve(sim, "lead", "lambda.ml-lead", "ask")
    trains(sim)
    assert [turn.team for turn in of(sim, "release").waiting_for] == ["content-team"]
    approve(sim, "lead", "lambda.content-team", "release")
    assert not released(sim)
    approve(sim, "editor", "lambda.content-team", "release")
    assert released(sim)


def lineage(sim: Simulation) -> dict[str, Any]:
    (made,) = [one for one in sim.world.list("ModelRelease") if one["spec"]["model"]["version"] == "1.0.0"]
    found: dict[str, Any] = made["spec"]["lineage"]
    return found


def test_with_scenario_standard_a_share_that_has_changed_in_this_quarter_waits_for_the_next_one() -> None:
    sim = releasing("0.72", a_stable("0.70", since="2026-10-05T00:00:00Z"))
    trains(sim)
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_WINDOW)
    assert "is 0.70; that has been so since 2026-10-05, and with scenario Standard λ changes once a quarter" in said(sim)
    assert "the next one begins on 2027-01-01" in said(sim)
    assert of(sim, "release").waiting_for == []
    again = sim.step().requeue_after
    assert again is not None
    assert again <= 2 * HEALING_SECONDS, "another release may become stable meanwhile"
    sim.step((datetime(2027, 1, 1, tzinfo=UTC) - sim.now).total_seconds() - 1)
    assert sim.top()[1] == Reason.WAITING_FOR_WINDOW
    sim.step(1)
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)
    approve(sim, "lead", "lambda.ml-lead", "release")
    assert released(sim)
    assert lineage(sim)["baseNoiseSharesSince"].startswith("2027-01-01")


@pytest.mark.parametrize(
    ("since", "scenarios"),
    [
        ("2026-09-30T23:59:59Z", {}),
        ("2026-09-30T22:00:00-01:00", {}),
        ("2025-11-01T00:00:00Z", {"baseScenario": "Standard"}),
        ("2026-10-31T00:00:00Z", {"baseScenario": "HighDetail"}),
        ("2026-10-31T00:00:00Z", {"residualScenario": "Static"}),
        (None, {}),
    ],
)
def test_in_a_quarter_without_a_change_and_in_other_scenarios_it_changes_as_needed(since: str | None, scenarios: dict[str, str]) -> None:
    sim = releasing("0.70", a_stable("0.71", since=since), **scenarios)
    trains(sim)
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_APPROVAL)


def test_the_next_release_with_the_same_share_tells_when_it_changed() -> None:
    sim = releasing("0.70", a_stable("0.7", since="2026-10-05T00:00:00Z"))
    trains(sim)
    assert lineage(sim)["baseNoiseSharesSince"] == "2026-10-05T00:00:00Z"


def test_a_release_tells_who_approved_what_of_its_run() -> None:
    sim = releasing("0.72", a_stable("0.70"), OF_LAMBDA)
    approve(sim, "lead", "lambda.ml-lead", "ask")
    trains(sim)
    (given,) = lineage(sim)["approvals"]
    assert (given["kind"], given["team"], given["user"]) == ("lambda", "ml-lead", "lead")
    assert given["digest"] == digest(sim, "ask")
