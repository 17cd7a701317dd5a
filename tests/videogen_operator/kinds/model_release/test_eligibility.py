"""May a release start? One row for each reason, in the order of the rules."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from videogen_api.evaluation import MetricResult
from videogen_api.gates import evaluation_digest
from videogen_api.model_release import Reason
from videogen_operator.kinds.model_release.eligibility import evidence, obstacle
from videogen_operator.kinds.model_release.judging.quarantine import Entry
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.states import Event
from videogen_testing.releases import Objects, a_gate, a_release, a_result, a_run, digest_of

MINE = digest_of("1.0.0")
GATED: dict[str, Any] = {"gates": [a_gate()], "lineage": {"run": "training"}}
MEASURED = evaluation_digest([MetricResult.model_validate(a_result())])
NAMED: dict[str, Any] = GATED | {"lineage": {"run": "training", "evaluation": {"phase": "validate", "digest": MEASURED}}}
BAD = [Entry(MINE, "older", "CheckFailed", "2026-11-01T00:00:00Z")]
KEPT = {"evaluation": [a_result()]}
LIFTED = {"rollout": {"state": "Queued", "retried": True}}


def with_phase(run: dict[str, Any], outcome: str) -> dict[str, Any]:
    """The run with an Optimize phase at the end, whose bundle is too bad for the gate."""
    phase = {
        "name": "optimize",
        "outcome": outcome,
        "results": [a_result(value="200")],
        "optimization": {"unoptimizedBytes": 9, "optimizedBytes": 3},
    }
    run["status"]["phases"].append(phase)
    return run


@pytest.mark.parametrize(
    ("sentence", "spec", "status", "run", "quarantine", "expected"),
    [
        ("without gates it may start", {}, {}, None, [], None),
        ("gates that pass let it start", GATED, {}, a_run(digest=MINE, results=[a_result()]), [], None),
        ("results kept in the status outlive the run", GATED, KEPT, None, [], None),
        (
            "another bundle than the run's is refused",
            GATED, {}, a_run(digest=digest_of("other"), results=[a_result()]), [], (Event.REJECT, Reason.ARTIFACT_MISMATCH),
        ),
        (
            "another bundle is refused also without gates",
            {"lineage": {"run": "training"}}, {}, a_run(digest=digest_of("other")), [], (Event.REJECT, Reason.ARTIFACT_MISMATCH),
        ),
        ("the evaluation that its lineage names lets it start", NAMED, {}, a_run(digest=MINE, results=[a_result()]), [], None),
        ("the evaluation that its lineage names may be the one in the status", NAMED, KEPT, None, [], None),
        (
            "another evaluation than its lineage names is refused, however good",
            NAMED, {}, a_run(digest=MINE, results=[a_result(value="1")]), [], (Event.REJECT, Reason.EVALUATION_MISMATCH),
        ),
        ("gates without lineage cannot be judged", {"gates": [a_gate()]}, {}, None, [], (Event.REJECT, Reason.GATE_INCONCLUSIVE)),
        ("a run that is missing may still come", GATED, {}, None, [], (Event.WAIT, Reason.RUN_NOT_FOUND)),
        ("a run that has not measured may still do it", GATED, {}, a_run(digest=MINE), [], (Event.WAIT, Reason.GATES_PENDING)),
        (
            "a run that ended without measuring never will",
            GATED, {}, a_run(digest=MINE, ended="False"), [], (Event.REJECT, Reason.GATE_INCONCLUSIVE),
        ),
        (
            "a failed optimisation says nothing of the bundle that the run has kept",
            GATED, {}, with_phase(a_run(digest=MINE, results=[a_result()]), "GateFailed"), [], None,
        ),
        (
            "an optimisation that the run took says what its bundle can do",
            GATED, {}, with_phase(a_run(digest=MINE, results=[a_result()]), "Completed"), [], (Event.REJECT, Reason.GATE_FAILED),
        ),
        ("an evaluation of an unknown bundle waits", GATED, {}, a_run(results=[a_result()]), [], (Event.WAIT, Reason.GATES_PENDING)),
        ("a failed gate rejects", GATED, {}, a_run(digest=MINE, results=[a_result(value="200")]), [], (Event.REJECT, Reason.GATE_FAILED)),
        (
            "too few samples reject, however good",
            GATED, {}, a_run(digest=MINE, results=[a_result(samples=63)]), [], (Event.REJECT, Reason.GATE_INCONCLUSIVE),
        ),
        (
            "a metric that was not measured rejects",
            GATED, {}, a_run(digest=MINE, results=[a_result("CLIPScore")]), [], (Event.REJECT, Reason.GATE_INCONCLUSIVE),
        ),
        (
            "a metric of a newer operator's is nothing to judge by, and hides no other",
            GATED, {}, a_run(digest=MINE, results=[a_result("MetricOfTomorrow"), a_result()]), [], None,
        ),
        ("a quarantined digest is rejected", {}, {}, None, BAD, (Event.REJECT, Reason.QUARANTINED)),
        ("a person can lift the quarantine", {}, LIFTED, None, BAD, None),
        ("a person cannot lift a gate", GATED, LIFTED, None, BAD, (Event.WAIT, Reason.RUN_NOT_FOUND)),
        ("a missing claim may still come", {"artifact": {"claimName": "gone"}}, {}, None, [], (Event.WAIT, Reason.CLAIM_NOT_FOUND)),
    ],
)  # fmt: skip
def test_obstacle(
    one: Callable[..., Release],
    sentence: str,
    spec: Mapping[str, Any],
    status: Mapping[str, Any],
    run: Mapping[str, Any] | None,
    quarantine: list[Entry],
    expected: tuple[Event, Reason] | None,
) -> None:
    release = one(a_release(status=status, **spec), *([run] if run else []))
    found = obstacle(release, quarantine)
    assert (found and (found.event, found.reason)) == expected, sentence
    assert found is None or found.message


def test_the_results_of_another_bundle_are_not_copied(one: Callable[..., Release]) -> None:
    run = a_run(digest=digest_of("other"), results=[a_result()])
    assert evidence(one(a_release(**GATED), run)) == ()


def test_the_gates_of_a_release_are_not_judged_by_what_scenarios_measured(one: Callable[..., Release]) -> None:
    run = a_run(digest=MINE, results=[a_result()])
    run["status"]["phases"].append({"name": "scenarios", "results": [a_result("ScenarioPassRatio", "0.98"), a_result(value="999")]})
    run["spec"] = {"phases": [{"name": "validation", "task": "Evaluate"}, {"name": "scenarios", "task": "TestScenarios"}]}
    release = one(a_release(**GATED), run)
    assert obstacle(release, []) is None
    assert [(result.metric, result.value) for result in evidence(release)] == [("FVD", "150")]


def test_a_world_without_the_service_ends_the_loop() -> None:
    from videogen_operator.kinds.model_release.observed import observe
    from videogen_operator.plan import Key

    assert observe(Objects(), Key("ModelRelease", "films", "standard")) is None
