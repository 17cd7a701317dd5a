"""What of a TrainingRun can be edited: while it is suspended, and what has not begun. The API server alone says so, by the old status."""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from videogen_api.run_changes import OPERATIONAL
from videogen_api.training_run import Phase
from videogen_testing.control_plane import Api, Refused
from videogen_testing.edits import ABSENT, CURATE, INIT, edited
from videogen_testing.runs import DIGEST, EVALUATE, RELEASE, RUNS, TRAIN, a_run

MORE = deepcopy(TRAIN) | {"name": "more"}
PHASES = [CURATE, TRAIN, MORE, EVALUATE, RELEASE]
TRACKING = {"mlflow": {"uri": "https://mlflow:5000"}}
DONE, BEGUN, SUSPENDED = {"begun": True, "outcome": "Completed"}, {"begun": True, "attempt": 1}, {"begun": False}
FIRST_TWO = {"phases": [{"name": "curate"} | DONE, {"name": "train"} | BEGUN, {"name": "more"} | SUSPENDED]}
NOTHING: Mapping[str, Any] = {"phases": [{"name": "curate"} | SUSPENDED]}
PINNED = {"initFrom": INIT | {"path": "bundles/x", "digest": DIGEST}}
ENDED = {"phases": [phase | DONE for phase in ({"name": one["name"]} for one in PHASES)]}
TIME = "2026-11-01T00:00:00Z"
SUCCEEDED = {"conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed", "lastTransitionTime": TIME}]}

OTHER_WORK: dict[str, Any] = {  # of the phase that is number 1
    "task": "FineTune",
    "data": [{"dataset": "clips", "version": "2"}],
    "train": {"steps": 7},
    "name": "renamed",
}
ANOTHER_WAY: dict[str, Any] = {
    "attempts": 9,
    "window": {"notBefore": "2026-12-07T00:00:00Z", "deadlineSeconds": 3600},
    "owner": "ml-engineering",
    "workers": {"replicas": 2},
    "resources": {"limits": {"memory": "9Gi"}},
    "placement": {"queueName": "research"},
}

# Sentence: status, edits
ACCEPTED: dict[str, tuple[Mapping[str, Any], list[tuple[str, Any]]]] = {
    "a phase that has not begun, whatever it does": (
        FIRST_TWO,
        [("spec.phases.2.data.0.version", "2"), ("spec.phases.2.task", "FineTune")],
    ),
    "gates that nothing was judged by": (FIRST_TWO, [("spec.phases.3.gates.0.threshold", "150")]),
    "a phase that has not begun, taken away": (FIRST_TWO, [("spec.phases", [*PHASES[:2], *PHASES[3:]])]),
    "a phase that has not begun, renamed": (FIRST_TWO, [("spec.phases.2.name", "longer")]),
    "one more phase after those that have begun": (FIRST_TWO, [("spec.phases", [*PHASES[:2], TRAIN | {"name": "new"}, *PHASES[2:]])]),
    "the order of phases that have not begun": (FIRST_TWO, [("spec.phases", [*PHASES[:2], TRAIN | {"name": "new"}, MORE, *PHASES[3:]])]),
    "all phases, when none has begun": (NOTHING, [("spec.phases", [EVALUATE]), ("spec.initFrom", INIT)]),
    "the model, when nothing has begun": (NOTHING, [("spec.model.version", "1.0.1")]),
    "the recipe, when nothing has begun": (PINNED, [("spec.recipe.steps", 200)]),
    "the storage, when nothing has begun": ({}, [("spec.storage.claimName", "other")]),
    "the weights to start from, when nothing is pinned": (NOTHING, [("spec.initFrom", INIT)]),
    "the weights to start from, taken away": (NOTHING, [("spec.initFrom", ABSENT)]),
    "where curves go, at any time": (FIRST_TWO, [("spec.tracking", TRACKING)]),
    "where curves go, taken away": (FIRST_TWO, [("spec.tracking", ABSENT)]),
    "resources of the release": (FIRST_TWO, [("spec.phases.4.release.serving", {"resources": {"limits": {"memory": "3Gi"}}})]),
}

BEGUN_STAY = "phases that have begun cannot be removed, renamed or moved, and no phase can be put before them; create a new TrainingRun"
WORK_STAYS = (
    "of a phase that has begun only attempts, window, owner, workers, resources, placement can be changed; create a new TrainingRun"
)
UNTIL = "can only be changed while the run is suspended and none of its phases has begun"

# Sentence: status, edits, what the message says
REFUSED: dict[str, tuple[Mapping[str, Any], list[tuple[str, Any]], str]] = {
    "a phase that has begun, taken away": (FIRST_TWO, [("spec.phases", [CURATE, *PHASES[2:]])], BEGUN_STAY),
    "a phase that is done, taken away": (FIRST_TWO, [("spec.phases", PHASES[1:])], BEGUN_STAY),
    "a phase before one that has begun": (FIRST_TWO, [("spec.phases", [CURATE, TRAIN | {"name": "new"}, *PHASES[1:]])], BEGUN_STAY),
    "a phase before one that is done": (FIRST_TWO, [("spec.phases", [CURATE | {"name": "new"}, *PHASES])], BEGUN_STAY),
    "phases that have begun, in another order": (
        {"phases": [{"name": name} | DONE for name in ("curate", "train", "more")]},
        [("spec.phases", [CURATE, MORE, TRAIN, *PHASES[3:]])],
        BEGUN_STAY,
    ),
    "a name that was begun for other work": (
        FIRST_TWO,
        [("spec.phases", [CURATE, TRAIN | {"data": [{"dataset": "other", "version": "1"}]}, *PHASES[2:]])],
        WORK_STAYS,
    ),
    "gates after the judgement": (ENDED, [("spec.phases.3.gates", [])], WORK_STAYS),
    "a phase that was only marked": ({"phases": [{"name": "curate", "begun": True}]}, [("spec.phases.0.curate.version", "2")], WORK_STAYS),
    "one more phase of a run that has succeeded": (
        ENDED | SUCCEEDED,
        [("spec.phases", [*PHASES[:3], EVALUATE, EVALUATE | {"name": "again"}, RELEASE])],
        BEGUN_STAY,
    ),
    "one more phase at the end of a run that has succeeded": (
        {"phases": ENDED["phases"][:4]} | SUCCEEDED,
        [("spec.phases.4.name", "another")],
        "the run has succeeded, and no phase can be added to it; create a new TrainingRun instead",
    ),
    "the model, when a phase has begun": (FIRST_TWO, [("spec.model.version", "1.0.1")], f"spec.model {UNTIL}"),
    "the recipe, when a phase has begun": (FIRST_TWO, [("spec.recipe.steps", 200)], f"spec.recipe {UNTIL}"),
    "the storage, when a phase has begun": (FIRST_TWO, [("spec.storage.claimName", "other")], f"spec.storage {UNTIL}"),
    "the storage, when weights are pinned in it": (PINNED, [("spec.storage.claimName", "other")], f"spec.storage {UNTIL}"),
    "the weights to start from, when they are pinned": (
        PINNED,
        [("spec.initFrom.release", "pib-videogen-videofusion-v0.8.0-base")],
        f"spec.initFrom {UNTIL}, nor status.initFrom is there",
    ),
    "the weights to start from, taken away when they are pinned": (PINNED, [("spec.initFrom", ABSENT)], f"spec.initFrom {UNTIL}"),
    "the weights to start from, when a phase has begun": (FIRST_TWO, [("spec.initFrom", ABSENT)], f"spec.initFrom {UNTIL}"),
}


def existing(api: Api, namespace: str, status: Mapping[str, Any], suspend: bool = True) -> dict[str, Any]:
    """A run that is there, with this status."""
    more: dict[str, Any] = {"initFrom": INIT, "tracking": {"mlflow": {"uri": "https://first:5000"}}, "suspend": suspend}
    api.create(RUNS.format(namespace), a_run(namespace=namespace, phases=PHASES, **more))
    path = f"{RUNS.format(namespace)}/run"
    api.merge(f"{path}/status", {"status": status})
    return dict(api.get(path))


def put(api: Api, run: Mapping[str, Any], *edits: tuple[str, Any]) -> Any:
    path = f"{RUNS.format(run['metadata']['namespace'])}/run?dryRun=All&fieldValidation=Strict"
    return api.request("PUT", path, edited(run, *edits))


def refusal(api: Api, run: Mapping[str, Any], *edits: tuple[str, Any]) -> str:
    with pytest.raises(Refused) as caught:
        put(api, run, *edits)
    assert caught.value.code == 422
    return str(json.loads(caught.value.body)["message"])


@pytest.mark.parametrize("sentence", ACCEPTED)
def test_in_a_suspended_run_can_be_changed(api: Api, namespace: str, sentence: str) -> None:
    status, edits = ACCEPTED[sentence]
    put(api, existing(api, namespace, status), *edits)


@pytest.mark.parametrize("sentence", REFUSED)
def test_in_a_suspended_run_cannot_be_changed(api: Api, namespace: str, sentence: str) -> None:
    status, edits, message = REFUSED[sentence]
    assert message in refusal(api, existing(api, namespace, status), *edits)


@pytest.mark.parametrize("field", ANOTHER_WAY)
def test_how_a_phase_that_has_begun_is_worked_on_can_be_changed(api: Api, namespace: str, field: str) -> None:
    made = put(api, existing(api, namespace, FIRST_TWO), (f"spec.phases.1.{field}", ANOTHER_WAY[field]))
    assert made["spec"]["phases"][1][field] == ANOTHER_WAY[field]


@pytest.mark.parametrize("field", OTHER_WORK)
def test_what_a_phase_that_has_begun_does_cannot_be_changed(api: Api, namespace: str, field: str) -> None:
    message = refusal(api, existing(api, namespace, FIRST_TWO), (f"spec.phases.1.{field}", OTHER_WORK[field]))
    assert (BEGUN_STAY if field == "name" else WORK_STAYS) in message


def test_every_field_of_a_phase_is_work_or_a_way_to_do_it() -> None:
    assert set(ANOTHER_WAY) == set(OPERATIONAL) <= {field.alias for field in Phase.model_fields.values()}


@pytest.mark.parametrize(
    "edit", [("spec.phases.2.attempts", 9), ("spec.tracking", ABSENT), ("spec.recipe.steps", 9)], ids=lambda edit: edit[0]
)
def test_nothing_is_changed_in_the_request_that_suspends_or_resumes(api: Api, namespace: str, edit: tuple[str, Any]) -> None:
    run = existing(api, namespace, NOTHING, suspend=False)
    for suspend in (True, False):
        assert "can only be changed while the run is suspended" in refusal(api, run, edit, ("spec.suspend", suspend))
    put(api, run, ("spec.suspend", True))
    api.merge(f"{RUNS.format(namespace)}/run", {"spec": {"suspend": True}})
    suspended = api.get(f"{RUNS.format(namespace)}/run")
    put(api, suspended, edit)
    assert "can only be changed while the run is suspended" in refusal(api, suspended, edit, ("spec.suspend", False))


def test_phases_keep_their_order_while_the_run_works(api: Api, namespace: str) -> None:
    run = existing(api, namespace, {}, suspend=False)
    message = refusal(api, run, ("spec.phases", [CURATE, MORE, TRAIN, EVALUATE, RELEASE]))
    assert "spec.phases can only be changed while the run is suspended" in message


def test_a_status_is_written_whatever_has_begun(api: Api, namespace: str) -> None:
    existing(api, namespace, FIRST_TWO, suspend=False)
    api.merge(f"{RUNS.format(namespace)}/run/status", {"status": ENDED | SUCCEEDED})
