"""What becomes of a run whose last phase is a release: it succeeds when that is deployed, and fails with it."""

from typing import Any

import pytest

from videogen_api.bundle import content_digest
from videogen_api.evaluation import Metric, MetricResult
from videogen_api.gates import evaluation_digest
from videogen_api.job import Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.pinned import ResolvedDataset
from videogen_api.training_run import Reason, TrainingRunSpec
from videogen_testing.edits import CURATE
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, a_run, ended, release_status, running, trained

NAME = "pib-videogen-videofusion-v1.0.0-base"
DATA, STARTED_FROM = "sha256:" + "1" * 64, "sha256:" + "2" * 64
CANARY = release_status("Canary", ready=False, Reconciling="Canary")


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def releasing(status: dict[str, Any], **phase: Any) -> Simulation:
    """A run that has created its release, which has this status."""
    release = RELEASE | {"release": RELEASE["release"] | {key: phase.pop(key) for key in ("waitFor",) if key in phase}}
    sim = Simulation(phases=[TRAIN, EVALUATE, release | phase])
    sim.release_status = status
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    sim.set_pods(ended(0, text(Report(results=[MetricResult(metric=Metric.FVD, value="100", samples=128)]))))
    sim.settle()
    return sim


def message(sim: Simulation) -> str:
    return next(one.message for one in sim.status().conditions if one.type == "Succeeded")


def test_a_run_succeeds_when_its_release_has_all_traffic() -> None:
    sim = releasing({})
    assert (sim.top(), sim.status().release) == (("Unknown", Reason.RELEASING), NAME)
    assert message(sim) == f"release: ModelRelease {NAME} is Pending; waits until it is Stable"
    for status in (CANARY, release_status("Stable", Reconciling="Stable")):  # the gateway has not taken over the last weights yet
        sim.release(status)
        sim.step(3600)
        sim.settle()
        assert sim.top() == ("Unknown", Reason.RELEASING)
    sim.release(release_status("Stable"))
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.status().phases[2].message == f"ModelRelease {NAME} is Stable"
    sim.release(release_status("Alert", ready=False, RolledBack="Alert", Stalled="Alert"))
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED), "what becomes of a release later is not the run's affair"


def test_a_release_says_by_digest_where_its_bundle_comes_from() -> None:
    init = {"run": "source"}
    sim = Simulation(phases=[CURATE, TRAIN, EVALUATE, RELEASE], initFrom=init)
    ended_well = {"conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed"}]}
    sim.put(a_run("source") | {"status": ended_well | {"artifact": {"path": "bundles/old", "digest": STARTED_FROM}}}, "models")
    sim.settle()
    data = ResolvedDataset(dataset="clips", version="1", digest=DATA, clips=9)
    results = [MetricResult(metric=Metric.FVD, value="100", low="90", high="110", samples=128, message="how")]
    image = "trainer@sha256:" + "d" * 64
    for report in (Report(datasets=[data]), trained(), Report(results=results, datasets=[data], page=True)):
        sim.set_pods(running() | {"containerStatuses": [running()["containerStatuses"][0] | {"imageID": image}]})
        sim.settle()
        sim.set_pods(ended(0, text(report)))
        sim.settle()
    page = f"{trained().artifact.path}.run-{sim.run()['metadata']['uid'][:8]}.validate.html"  # type: ignore[union-attr]
    assert sim.status().phases[2].report == page
    (release,) = sim.world.list("ModelRelease", "models")
    lineage = release["spec"]["lineage"]
    assert lineage.pop("recipeDigest") == content_digest(TrainingRunSpec.model_validate(sim.run()["spec"]).recipe.wire())
    assert lineage == {
        "run": "run",
        "baseNoiseShares": ["0.70"],
        "baseNoiseSharesSince": "2026-11-01T00:00:00Z",
        "approvals": [],
        "datasets": [{"dataset": "clips", "version": "1", "digest": DATA}],
        "initFrom": init | {"digest": STARTED_FROM},
        "images": [image],
        "evaluation": {"phase": "validate", "digest": evaluation_digest(results), "report": page},
    }
    told = sim.files["run-validate-1"]
    assert told.lineage is not None and told.lineage.evaluation is None, "the page has what is known before it measures"
    assert (told.lineage.run, told.lineage.datasets[0].digest, told.gates[0].metric) == ("run", DATA, Metric.FVD)
    assert sim.files["run-train-1"].lineage is None


def test_a_trainer_that_writes_no_page_is_not_believed_to_have_written_one() -> None:
    sim = releasing({})
    (release,) = sim.world.list("ModelRelease", "models")
    assert "report" not in release["spec"]["lineage"]["evaluation"]
    assert sim.status().phases[1].report is None


def test_what_a_canary_says_of_its_requests_costs_the_run_no_write() -> None:
    sim = releasing(CANARY)
    version = sim.run()["metadata"]["resourceVersion"]
    more = [one | {"message": "20 of 100 requests"} for one in CANARY["conditions"]]
    sim.release(CANARY | {"conditions": more})
    sim.settle()
    assert sim.run()["metadata"]["resourceVersion"] == version


def without_ready() -> dict[str, Any]:
    status = release_status()
    return status | {"conditions": [one for one in status["conditions"] if one["type"] != "Ready"]}


PROMOTED = {"rollout": {"promotedTime": "2026-11-01T00:00:00Z"}}
ENDS: list[tuple[str, dict[str, Any], tuple[str, Reason], str]] = [
    (
        "its traffic was taken back",
        release_status("Alert", ready=False, RolledBack="Alert", Stalled="Alert"),
        ("False", Reason.RELEASE_ROLLED_BACK),
        f"ModelRelease {NAME} was rolled back: Alert: Alert in words",
    ),
    (
        "its gates refuse it",
        release_status("GateFailed", ready=False, Stalled="GateFailed"),
        ("False", Reason.RELEASE_FAILED),
        f"ModelRelease {NAME} does not get into service: GateFailed: GateFailed in words",
    ),
    (
        "a later version overtook it in the queue",
        release_status("Superseded"),
        ("False", Reason.RELEASE_FAILED),
        f"ModelRelease {NAME} never got into service: a later release has taken it over",
    ),
    ("it was Stable and is replaced already", release_status("Superseded") | PROMOTED, ("True", Reason.COMPLETED), ""),
    ("it was Stable and nothing is said of it any more", without_ready() | PROMOTED, ("True", Reason.COMPLETED), ""),
    ("it was Stable and is the standby already", release_status("Standby"), ("True", Reason.COMPLETED), ""),
]


@pytest.mark.parametrize("status, top, words", [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_how_a_release_ends_is_how_its_run_ends(status: dict[str, Any], top: tuple[str, Reason], words: str) -> None:
    sim = releasing(CANARY)
    sim.release(status)
    sim.settle()
    assert sim.top() == top
    assert words in message(sim)


def test_a_release_of_the_same_bundle_in_another_service_is_not_the_runs() -> None:
    sim = releasing(CANARY)
    (found,) = sim.world.list("ModelRelease", "models")
    sim.put(dict(found) | {"spec": found["spec"] | {"service": "emergency"}, "status": release_status("Stable")})
    sim.settle()
    assert sim.top() == ("False", Reason.RELEASE_CONFLICT)
    assert f"ModelRelease {NAME} exists in service emergency, and this run's is for standard" in message(sim)


def test_a_run_that_failed_with_its_release_succeeds_with_it_when_both_are_tried_again() -> None:
    sim = releasing(release_status("StartFailed", ready=False, Stalled="StartFailed"))
    assert sim.top() == ("False", Reason.RELEASE_FAILED)
    sim.release(CANARY)
    sim.settle()
    assert sim.top() == ("False", Reason.RELEASE_FAILED), "that it failed stands until somebody asks"
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RELEASING)
    sim.release(release_status("Stable"))
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)


def test_a_release_that_somebody_deletes_is_not_made_again_unless_it_is_asked_for() -> None:
    sim = releasing(CANARY)
    sim.world.remove(sim.world.get("ModelRelease", "models", NAME) or {})
    sim.settle()
    assert sim.top() == ("False", Reason.RELEASE_FAILED)
    assert "was deleted before it was Stable" in message(sim)
    assert sim.world.list("ModelRelease") == ()
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RELEASING)
    assert [one["metadata"]["name"] for one in sim.world.list("ModelRelease")] == [NAME]


def test_the_deadline_bounds_the_wait_and_says_what_the_release_does() -> None:
    sim = releasing(CANARY, window={"deadlineSeconds": 600})
    plan = sim.step(590)
    assert plan.requeue_after == 10
    sim.step(10)
    sim.settle()
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    said = (
        f"longer than window.deadlineSeconds 600; ModelRelease {NAME} is not Stable (Canary: Canary in words) and goes on without the run"
    )
    assert said in message(sim)


def test_a_release_that_was_stable_before_anybody_looked_is_in_time() -> None:
    sim = releasing(CANARY, window={"deadlineSeconds": 600})
    sim.release(release_status("Stable"))
    sim.step(5000)
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)


def test_a_suspended_run_does_not_wait_and_its_time_stands_still() -> None:
    sim = releasing(CANARY, window={"deadlineSeconds": 600})
    sim.spec(suspend=True)
    sim.settle()
    sim.step(5000)
    assert sim.top() == ("Unknown", Reason.SUSPENDED)
    sim.spec(suspend=False)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RELEASING)
    sim.step(590)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RELEASING)


def test_a_run_that_waits_for_nothing_is_done_when_its_release_exists() -> None:
    sim = releasing(CANARY, waitFor="Created")
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.status().phases[2].message == f"ModelRelease {NAME} is created"


def test_a_run_is_reconciling_until_its_first_job_and_never_again() -> None:
    sim = Simulation(phases=[TRAIN, EVALUATE, RELEASE], storage={"claimName": "late"})
    sim.release_status = CANARY
    seen: list[tuple[str, bool]] = []

    def look(*, seconds: float = 0.0) -> None:
        sim.step(seconds)
        conditions = {one.type: one for one in sim.status().conditions}
        seen.append((conditions["Succeeded"].reason, "Reconciling" in conditions))

    look()
    sim.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | claim("late"), "models")
    for _ in range(3):  # the preflight is made, is passed, and the first attempt is made
        look()
    sim.set_pods(ended(1))
    look(seconds=1)
    look(seconds=1)
    look(seconds=60)
    sim.set_pods(ended(0, text(trained())))
    for _ in range(4):
        look(seconds=1)
    sim.spec(suspend=True)
    look()
    sim.spec(suspend=False)
    for _ in range(4):
        look(seconds=1)
    sim.set_pods(ended(0, text(Report(results=[MetricResult(metric=Metric.FVD, value="100", samples=128)]))))
    for _ in range(4):
        look(seconds=1)
    assert seen[:3] == [(Reason.CLAIM_NOT_FOUND, True), (Reason.CHECKING, True), (Reason.STARTING, True)]
    assert {reconciling for _, reconciling in seen[3:]} == {False}
    assert {Reason.RETRYING, Reason.SUSPENDED, Reason.RELEASING} <= {reason for reason, _ in seen}


def claim(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"videogen.pib.gov.in/storage": "true"}}}
