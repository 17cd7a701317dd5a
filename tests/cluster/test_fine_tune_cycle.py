"""FineTuneCycles with the real operator against a real API server: what is refused when it is written, and a cycle's life."""

import json
import signal
from typing import Any

import pytest

from videogen_api.crd import FINE_TUNE_CYCLE, definition
from videogen_api.fine_tune_cycle import LABEL_CYCLE, LABEL_MEASURES
from videogen_testing.control_plane import Api, Refused, eventually
from videogen_testing.cycle_simulation import TEMPLATE, a_cycle
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import EVALUATE, RUNS, a_claim, a_run, ended, first_job, play, trained

CYCLES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/finetunecycles"
STAGES = [
    {"name": "curation", "owner": "data-science", "startDay": 0, "days": 7, "phases": ["curate"]},
    {"name": "fine-tuning", "owner": "ml-engineering", "startDay": 7, "days": 7, "phases": ["train"]},
]
MEASURES: dict[str, Any] = {
    "cadence": "Daily",
    "target": {"service": "standard"},
    "runTemplate": {"spec": TEMPLATE | {"phases": [EVALUATE]}},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no cadence": ({"cadence": None}, "spec.cadence: Required value"),
    "a cadence that there is not": ({"cadence": "Hourly"}, 'supported values: "Daily", "Weekly", "Monthly", "Quarterly", "Annual"'),
    "a version each day": ({"cadence": "Daily"}, "cadence Daily is for cycles with a target"),
    "a target and a start": (MEASURES | {"startFrom": {"service": "standard"}}, "leave startFrom out"),
    "a target and a training": (MEASURES | {"runTemplate": {"spec": TEMPLATE}}, "has Evaluate phases alone"),
    "a target without its service": (MEASURES | {"target": {}}, "spec.target.service: Required value"),
    "a target whose runs go at once": (MEASURES | {"successfulRunsHistoryLimit": 0}, "the history limits must not be 0"),
    "a target whose failed runs go at once": (MEASURES | {"failedRunsHistoryLimit": 0}, "the history limits must not be 0"),
    "a schedule of three fields": ({"schedule": "0 3 1"}, "spec.schedule"),
    "a schedule by name": ({"schedule": "@monthly"}, "spec.schedule"),
    "a time zone that there is not": ({"timeZone": "Asia/Delhi"}, "spec.timeZone"),
    "windows that overlap": ({"stages": [STAGES[0], STAGES[1] | {"startDay": 6}]}, "the windows of two stages overlap"),
    "stages in another order": ({"stages": STAGES[::-1]}, "stages must stand in the order of their startDay"),
    "two stages of one name": ({"stages": [STAGES[0], STAGES[1] | {"name": "curation"}]}, "Duplicate value"),
    "a window of no day": ({"stages": [STAGES[0] | {"days": 0}]}, "spec.stages[0].days"),
    "a stage without a phase": ({"stages": [STAGES[0] | {"phases": []}]}, "spec.stages[0].phases"),
    "a model with a version": ({"model": {"family": "VideoFusion", "version": "1.0.0"}}, 'unknown field "spec.model.version"'),
    "another family's type": ({"model": {"family": "VideoFusion", "type": "text2video-zero"}}, "type is the default of another family"),
    "a deadline of a second": ({"startingDeadlineSeconds": 1}, "spec.startingDeadlineSeconds"),
    "a policy of CronJob's that there is not": ({"concurrencyPolicy": "Allow"}, 'supported values: "Forbid", "Replace", "Queue"'),
    "a template with a field that runs do not have": (
        {"runTemplate": {"spec": TEMPLATE | {"stepz": 1}}},
        'unknown field "spec.runTemplate',
    ),
    "a template with a model": ({"runTemplate": {"spec": TEMPLATE | {"model": {}}}}, 'unknown field "spec.runTemplate.spec.model"'),
    "a template with another type": ({"runTemplate": {"spec": TEMPLATE | {"recipe": "Tiny"}}}, "spec.runTemplate.spec.recipe"),
    "a template with a task that there is not": (
        {"runTemplate": {"spec": TEMPLATE | {"phases": [{"name": "train", "task": "Tran"}]}}},
        "spec.runTemplate.spec.phases[0].task: Unsupported value",
    ),
    "a target below the minimum": (
        {"collect": [{"dataset": "pib", "minimum": 1000, "target": 999}]},
        "target must not be less than minimum",
    ),
    "two targets of one dataset": ({"collect": [{"dataset": "pib", "minimum": minimum} for minimum in (1, 2)]}, "Duplicate value"),
    "a target without a minimum": ({"collect": [{"dataset": "pib"}]}, "spec.collect[0].minimum: Required value"),
    "a policy that there is not": (
        {"collect": [{"dataset": "pib", "minimum": 1, "whenBelow": "Fail"}]},
        'supported values: "Wait", "Skip"',
    ),
    "a budget of no hour": ({"budget": {"gpuHours": 0}}, "spec.budget.gpuHours"),
    "a budget without hours": ({"budget": {}}, "spec.budget.gpuHours: Required value"),
    "no template": ({"runTemplate": None}, "spec.runTemplate: Required value"),
}


def create(api: Api, namespace: str, cycle: dict[str, Any], query: str = "?fieldValidation=Strict") -> Any:
    cycle["metadata"]["namespace"] = namespace
    cycle["spec"] = {name: value for name, value in cycle["spec"].items() if value is not None}
    return api.create(CYCLES.format(namespace) + query, cycle)


def request(api: Api, namespace: str, text: str) -> None:
    path = f"{CYCLES.format(namespace)}/weekly"
    api.merge(path, {"metadata": {"annotations": {"videogen.pib.gov.in/request": text}}})


def ready(api: Api, namespace: str) -> str:
    status = api.get(f"{CYCLES.format(namespace)}/weekly").get("status") or {}
    return next((f"{one['status']} {one['reason']}" for one in status.get("conditions", []) if one["type"] == "Ready"), "")


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_the_api_server_refuses(api: Api, namespace: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as caught:
        create(api, namespace, a_cycle(**change), "?dryRun=All&fieldValidation=Strict")
    assert words in str(json.loads(caught.value.body)["message"])


@pytest.mark.parametrize("name", ["a" * 27, "1st", "weekly.hindi"])
def test_a_name_after_which_no_run_could_be_named_is_refused(api: Api, namespace: str, name: str) -> None:
    with pytest.raises(Refused, match=r"metadata\.name"):
        create(api, namespace, a_cycle(name), "?dryRun=All")


def test_a_cycle_that_measures_what_serves_is_taken(api: Api, namespace: str) -> None:
    made = create(api, namespace, a_cycle(**MEASURES))
    assert made["spec"]["target"] == {"service": "standard"}


def test_nobody_but_the_operator_puts_a_run_into_a_cycle(api: Api, namespace: str) -> None:
    def run(**labels: str) -> dict[str, Any]:
        made = a_run(namespace=namespace)
        return made | {"metadata": made["metadata"] | {"labels": labels}}

    def refusal(made: dict[str, Any]) -> str:
        try:
            api.create(f"{RUNS.format(namespace)}?dryRun=All", made)
        except Refused as error:
            return f"{error.code} {json.loads(error.body)['message']}"
        return ""

    for label in (LABEL_CYCLE, LABEL_MEASURES):
        eventually(lambda label=label: "are the operator's, which makes the runs of cycles" in refusal(run(**{label: "weekly"})))
    path = f"{RUNS.format(namespace)}/run"
    api.create(RUNS.format(namespace), run(team="films"))
    with pytest.raises(Refused, match="run-now@"):
        api.merge(path, {"metadata": {"labels": {LABEL_CYCLE: "weekly"}}})
    api.merge(path, {"metadata": {"labels": {"team": "news"}}, "spec": {"suspend": True}})


def test_the_model_of_a_cycle_stays_and_everything_else_can_be_edited(api: Api, namespace: str) -> None:
    edits: dict[str, Any] = {
        "cadence": "Monthly",
        "schedule": "0 4 * * 2",
        "timeZone": "Asia/Kolkata",
        "suspend": True,
        "startingDeadlineSeconds": 600,
        "concurrencyPolicy": "Queue",
        "precedence": 7,
        "startFrom": {"service": "standard"},
        "focus": "News in Hindi",
        "collect": [{"dataset": "pib", "minimum": 1000, "target": 2000, "whenBelow": "Skip"}],
        "budget": {"gpuHours": 2000},
        "skipIfNoNewData": True,
        "stages": [STAGES[1] | {"startDay": 0}],
        "runTemplate": {"spec": TEMPLATE | {"ttlSecondsAfterFinished": 60}},
        "successfulRunsHistoryLimit": 1,
        "failedRunsHistoryLimit": 1,
    }
    schema = definition(FINE_TUNE_CYCLE)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert edits.keys() | {"model", "target"} == schema["properties"].keys()
    create(api, namespace, a_cycle())
    path = f"{CYCLES.format(namespace)}/weekly"
    with pytest.raises(Refused, match=r"spec\.model is immutable; create another FineTuneCycle instead"):
        api.merge(path, {"spec": {"model": {"specialization": "hindi"}}})
    assert edits.items() <= api.merge(path, {"spec": edits})["spec"].items()


def test_a_request_makes_one_run_that_outlives_operator_and_cycle(api: Api, namespace: str, operator: OperatorProcess) -> None:
    runs, path = RUNS.format(namespace), f"{CYCLES.format(namespace)}/weekly"
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    create(api, namespace, a_cycle(suspend=True, successfulRunsHistoryLimit=1))
    operator.start()
    eventually(lambda: ready(api, namespace) == "True Suspended")
    request(api, namespace, "run-now@1")
    (run,) = eventually(lambda: api.items(runs))
    name = run["metadata"]["name"]
    assert run["metadata"]["labels"][LABEL_CYCLE] == "weekly"
    assert run["spec"]["model"] == {"family": "VideoFusion", "type": "videofusion", "version": "0.0.1", "specialization": "base"}
    operator.stop(signal.SIGKILL)
    operator.start()
    play(api, namespace, first_job(api, namespace, name), ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    history = eventually(lambda: api.get(path)["status"]["history"])
    assert [(past["run"], past["outcome"], past["version"]) for past in history] == [(name, "Succeeded", "0.0.1")]
    assert api.get(path)["status"]["lastVersion"] == "0.0.1"
    assert len(api.items(runs)) == 1, "the same request makes no second run"
    api.delete(path)
    eventually(lambda: api.find(path) is None)
    assert api.find(f"{runs}/{name}"), "deleting a cycle keeps its runs"


def test_a_schedule_makes_runs_and_keeps_as_many_as_its_limits_say(api: Api, namespace: str, operator: OperatorProcess) -> None:
    runs = RUNS.format(namespace)
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    create(api, namespace, a_cycle(schedule="* * * * *", successfulRunsHistoryLimit=0))
    operator.start()
    (run,) = eventually(lambda: api.items(runs))
    name = run["metadata"]["name"]
    play(api, namespace, first_job(api, namespace, name), ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    eventually(lambda: api.find(f"{runs}/{name}") is None)
    status = api.get(f"{CYCLES.format(namespace)}/weekly")["status"]
    assert (status["history"][0]["run"], status["history"][0]["outcome"]) == (name, "Succeeded"), "the account outlives the run"


def test_a_template_that_makes_no_run_is_said_at_once(api: Api, namespace: str, operator: OperatorProcess) -> None:
    create(api, namespace, a_cycle(runTemplate={"spec": TEMPLATE | {"storage": {"claimName": "$(claim)"}}}))
    operator.start()
    eventually(lambda: ready(api, namespace) == "False TemplateInvalid")
    (told,) = (one["message"] for one in api.get(f"{CYCLES.format(namespace)}/weekly")["status"]["conditions"] if one["type"] == "Stalled")
    assert told.startswith("spec.runTemplate.spec.storage.claimName: there is no $(claim)")
    api.merge(f"{CYCLES.format(namespace)}/weekly", {"spec": {"runTemplate": {"spec": TEMPLATE}}})
    eventually(lambda: ready(api, namespace) == "True Scheduled")


def test_what_no_run_has_is_not_stored_however_deep_it_is(api: Api, namespace: str) -> None:
    """Python reads no JSON of a few thousand levels: one such object would keep the operator from reading all others."""
    deep: Any = "end"
    for _ in range(400):
        deep = {"a": [deep]}
    create(api, namespace, a_cycle(runTemplate={"spec": TEMPLATE | {"extra": deep}}), "?fieldValidation=Ignore")
    assert api.get(f"{CYCLES.format(namespace)}/weekly")["spec"]["runTemplate"]["spec"] == TEMPLATE
