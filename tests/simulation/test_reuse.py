"""Runs that are made anew in the same storage: nothing is computed twice, and nothing counts that the operator has not sealed."""

from collections.abc import Callable
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.pinned import ResolvedDataset
from videogen_api.preflight import PreflightResult
from videogen_api.training_run import Reason, Task
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.seals import Seals
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import DIGEST, EVALUATE, OPTIMIZE, RELEASE, TRAIN, TUNE, ended, optimized, passed, running, trained, tuned

CURATE = {"name": "curate", "task": "Curate", "curate": {"dataset": "clips", "version": "1", "sources": [{"path": "raw/a"}]}}
USED = [ResolvedDataset(dataset="clips", version="1", digest=DIGEST, clips=9)]
ADAPT = TRAIN | {"name": "adapt", "task": "FineTune"}
Records = dict[str, dict[str, Any]]


def evaluated(fvd: str = "100") -> Report:
    return Report(results=[MetricResult(metric=Metric.FVD, value=fvd, samples=128)])


MADE = {
    Task.CURATE: Report(datasets=USED),
    Task.TRAIN: trained(),
    Task.FINE_TUNE: trained(digest="sha256:" + "c" * 64),
    Task.EVALUATE: evaluated(),
    Task.TUNE: tuned(),
    Task.OPTIMIZE: optimized(),
    Task.TEST_SCENARIOS: Report(results=[MetricResult(metric=Metric.SCENARIO_PASS_RATIO, value="1", samples=100)]),
}


def applied(phases: list[dict[str, Any]], records: Records, **spec: Any) -> Simulation:
    """A run in a storage with these records, until it waits for something."""
    sim = Simulation(phases=phases, **spec)
    sim.records = records
    sim.settle()
    return sim


def compute(sim: Simulation, report: Report | None = None) -> str:
    """The pods of the current attempt do their work, and keep its record if their task has one -> the phase."""
    job = sim.files[sim.current_job()["metadata"]["name"]]
    done = (report or MADE[job.task]).model_copy(update={"datasets": USED})
    sim.set_pods(running())
    sim.settle()
    if job.task not in {Task.CURATE, Task.TEST_SCENARIOS}:
        sim.keep(done)
    sim.set_pods(ended(0, done.model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    return job.phase


def lives(phases: list[dict[str, Any]], records: Records) -> list[str]:
    """The run is applied, deleted after one phase was computed, applied again, ..., until it succeeds -> phases that were computed."""
    computed: list[str] = []
    for _ in range(len(phases) + 1):
        sim = applied(phases, records)
        while (job := sim.current_job()) and sim.files[job["metadata"]["name"]].task in {Task.CURATE, Task.TEST_SCENARIOS}:
            compute(sim)
        if sim.current_job() is None:
            assert sim.top() == ("True", Reason.COMPLETED)
            return computed
        computed.append(compute(sim))
    raise AssertionError(f"it does not end: {computed}")


@pytest.mark.parametrize(
    "phases",
    [
        [TRAIN],
        [TUNE, TRAIN, ADAPT, OPTIMIZE, EVALUATE],
        [CURATE, TRAIN, EVALUATE],
        [TRAIN, EVALUATE, {"name": "try", "task": "TestScenarios"}],
        [TRAIN, EVALUATE, RELEASE],
    ],
    ids=lambda phases: ", ".join(phase["task"] for phase in phases),
)
def test_a_run_that_is_deleted_and_applied_again_after_each_phase_computes_none_twice(phases: list[dict[str, Any]]) -> None:
    keyed = [phase["name"] for phase in phases if phase["task"] not in {"Curate", "TestScenarios", "Release"}]
    assert lives(phases, {}) == keyed


def test_a_run_that_is_made_anew_reads_like_this() -> None:
    records: Records = {}
    first = applied([TRAIN, EVALUATE], records)
    compute(first)
    compute(first)
    sim = applied([TRAIN, EVALUATE], records)
    assert sim.jobs() == ()
    assert sim.log == [
        "PreflightPassed: 2 things that the phases need are there",
        "PhaseReused: train: reused from run run, phase train of 2026-11-01T00:00:00Z",
        f"PhaseCompleted: train: reused from run run, phase train of 2026-11-01T00:00:00Z; bundle {DIGEST} after step 100",
        "PhaseReused: validate: reused from run run, phase validate of 2026-11-01T00:00:00Z",
        "PhaseCompleted: validate: reused from run run, phase validate of 2026-11-01T00:00:00Z; 1 of 1 gates passed",
    ]
    train, validate = sim.status().phases
    assert (train.outcome, train.attempt, train.start_time, train.job_name) == (Reason.COMPLETED, 0, None, "")
    assert train.reused_from
    assert (train.reused_from.run, train.reused_from.phase) == ("run", "train")
    assert train.reused_from.key in records
    assert [(one.value, one.verdict) for one in validate.results] == [("100", "Passed")]
    assert sim.status().artifact == first.status().artifact
    assert next(one.message for one in sim.status().conditions if one.type == "Succeeded") == "all 2 phases are done, 2 of them reused"


def run_without_record_of(phases: list[dict[str, Any]], lost: str, records: Records) -> None:
    """The run computes all its phases, and while `lost` ends the inbox does not answer."""
    sim = applied(phases, records)
    while sim.current_job():
        before = set(records)
        if compute(sim) == lost:
            for key in set(records) - before:
                del records[key]


@pytest.mark.parametrize(
    "lost, computed",
    [
        ("early", ["early"]),  # it measures, and changes no weights
        ("validate", ["validate"]),
        ("search", ["search", "train", "early", "adapt", "validate"]),  # what it finds is in every later key
        ("train", ["train", "early", "adapt", "validate"]),
    ],
)
def test_a_lost_record_repeats_its_own_phase_and_those_whose_key_rests_on_it(lost: str, computed: list[str]) -> None:
    phases = [TUNE | {"name": "search"}, TRAIN, EVALUATE | {"name": "early"}, ADAPT, EVALUATE]
    records: Records = {}
    run_without_record_of(phases, lost, records)
    sim, repeated = applied(phases, records), []
    while sim.current_job():
        repeated.append(compute(sim))
    assert repeated == computed
    assert sim.top() == ("True", Reason.COMPLETED)


def test_after_weights_that_are_others_than_before_nothing_is_taken() -> None:
    records: Records = {}
    phases = [TRAIN, EVALUATE | {"name": "early"}, ADAPT]
    run_without_record_of(phases, "train", records)
    sim = applied(phases, records)
    compute(sim, trained(digest="sha256:" + "e" * 64))
    repeated = []
    while sim.current_job():
        repeated.append(compute(sim))
    assert repeated == ["early", "adapt"]


def lineage_in(sim: Simulation) -> dict[str, Any]:
    (release,) = sim.world.list("ModelRelease", "models")
    lineage: dict[str, Any] = release["spec"]["lineage"]
    return lineage


def test_the_release_of_a_reused_run_names_the_same_images_and_page_as_the_one_that_computed() -> None:
    records: Records = {}
    first = applied([TRAIN, EVALUATE, RELEASE], records)
    image = "trainer@sha256:" + "d" * 64
    for report in (trained(), evaluated().model_copy(update={"page": True})):
        first.set_pods(running() | {"containerStatuses": [running()["containerStatuses"][0] | {"imageID": image}]})
        first.settle()
        done = report.model_copy(update={"datasets": USED})
        first.keep(done)
        first.set_pods(ended(0, done.model_dump_json(by_alias=True, exclude_none=True)))
        first.settle()
    computed = lineage_in(first)
    assert computed["images"] == [image]
    assert computed["evaluation"]["report"].endswith(".validate.html")
    sim = applied([TRAIN, EVALUATE, RELEASE], records)
    assert sim.jobs() == ()
    assert lineage_in(sim) == computed
    assert [phase.image_id for phase in sim.status().phases[:2]] == [image, image]


def test_a_record_from_before_images_and_pages_were_kept_counts_without_them() -> None:
    records: Records = {}
    compute(applied([TRAIN], records))
    ((key, record),) = records.items()
    old = {name: value for name, value in record.items() if name not in {"imageID", "page"}}
    sim = applied([TRAIN], {key: sealed(old)})
    assert sim.jobs() == ()
    (phase,) = sim.status().phases
    assert phase.reused_from
    assert (phase.image_id, phase.report) == ("", None)


def test_a_retry_forgets_the_page_about_what_was_measured_before() -> None:
    sim = applied([TRAIN, EVALUATE], {})
    compute(sim)
    compute(sim, evaluated("999").model_copy(update={"page": True}))
    assert sim.top() == ("False", Reason.GATE_FAILED)
    assert sim.status().phases[1].report
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    compute(sim)
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.status().phases[1].report is None


def test_a_fresh_run_looks_up_its_first_phase_alone() -> None:
    sim = applied([TRAIN, ADAPT, EVALUATE], {})
    for _ in range(3):
        compute(sim)
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.preflights() == ("run-train-0",)


def sealed(record: dict[str, Any], namespace: str = "models", secret: bytes = b"k" * 32, **changes: Any) -> dict[str, Any]:
    """As who has this key would seal it, with these changes."""
    return Seals({"key-1": secret}).sealed(
        {name: value for name, value in record.items() if name not in {"mac", "keyID"}} | changes, namespace
    )


def better(record: dict[str, Any]) -> dict[str, Any]:
    return record["report"] | {"artifact": {"path": "bundles/evil/x", "digest": DIGEST}}


SPOIL: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "another bundle": (lambda one: one | {"report": better(one)}, "its MAC is not the one of its content"),
    "sealed in another namespace": (lambda one: sealed(one, "others"), "or copied from elsewhere"),
    "sealed by somebody else": (lambda one: sealed(one, secret=b"x" * 32), "its MAC is not the one of its content"),
    "sealed with a key that is gone": (lambda one: one | {"keyID": "key-0"}, "which this operator does not have"),
    "of other inputs": (lambda one: sealed(one, key="f" * 64), "it is of other inputs"),
    "of a newer operator": (lambda one: sealed(one, report={"lastStep": "many"}), "it is of another version"),
    "cut": (lambda one: {name: value for name, value in one.items() if name != "mac"}, "its MAC is not the one of its content"),
    "empty": (lambda _: {"mac": "0"}, "which this operator does not have"),
}


@pytest.mark.parametrize("spoil, said", SPOIL.values(), ids=SPOIL)
def test_a_record_that_is_forged_cut_or_copied_is_told_and_the_phase_computed(
    spoil: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    records: Records = {}
    compute(applied([TRAIN], records))
    ((key, record),) = records.items()
    sim = applied([TRAIN], {key: spoil(record)})
    (refused,) = [line for line in sim.log if line.startswith("RecordRefused")]
    assert said in refused
    assert "so the phase is computed" in refused
    assert compute(sim) == "train"
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.status().phases[0].reused_from is None


def test_the_record_of_one_phase_is_of_no_use_for_another() -> None:
    records: Records = {}
    compute(applied([TRAIN, EVALUATE], records))
    ((_, of_training),) = records.items()
    sim = applied([TRAIN, EVALUATE], records)
    compute(sim, evaluated("999"))
    assert sim.top() == ("False", Reason.GATE_FAILED)
    key = next(key for key in records if key != of_training["key"])
    forged = {**of_training, "key": key}
    again = applied([TRAIN, EVALUATE], records | {key: forged})
    assert again.status().phases[0].reused_from
    assert again.current_job()["metadata"]["name"] == "run-validate-1"


def test_gates_that_were_tightened_since_judge_what_was_recorded() -> None:
    records: Records = {}
    first = applied([TRAIN, EVALUATE], records)
    compute(first)
    compute(first)
    stricter = EVALUATE | {"gates": [{"metric": "FVD", "operator": "LessThan", "threshold": "50"}]}
    sim = applied([TRAIN, stricter], records)
    assert sim.jobs() == ()
    assert sim.top() == ("False", Reason.GATE_FAILED)
    message = sim.status().phases[1].message
    assert message.startswith("reused from run run, phase validate of 2026")
    assert "0 of 1 gates passed" in message
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert sim.current_job()["metadata"]["name"] == "run-validate-1", "a person's retry computes it"
    compute(sim, evaluated("40"))
    assert sim.top() == ("True", Reason.COMPLETED)
    assert [phase.reused_from is not None for phase in sim.status().phases] == [True, False]


def test_the_first_phase_is_computed_at_a_persons_retry_too() -> None:
    records: Records = {}
    bound = OPTIMIZE | {"optimize": {"quantization": "Int8Weights", "maximumLoss": [{"metric": "FVD", "maximum": "1"}]}}
    release = {"run": "base"}
    base = {"kind": "TrainingRun", "metadata": {"name": "base", "namespace": "models"}}

    def applied_after_base(phase: dict[str, Any]) -> Simulation:
        sim = Simulation(phases=[phase], initFrom=release)
        done = {"type": "Succeeded", "status": "True", "reason": "Completed", "lastTransitionTime": "2026-11-01T00:00:00Z"}
        artifact = {"path": "bundles/base/x", "digest": DIGEST}
        spec = sim.run()["spec"] | {"initFrom": None}
        sim.put(
            base | {"apiVersion": sim.run()["apiVersion"], "spec": spec, "status": {"conditions": [done], "artifact": artifact}}, "models"
        )
        sim.records = records
        sim.settle()
        return sim

    compute(applied_after_base(OPTIMIZE))
    sim = applied_after_base(bound)
    assert sim.jobs() == ()
    assert sim.top() == ("False", Reason.GATE_FAILED)
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert sim.current_job()["metadata"]["name"] == "run-optimize-1"


def test_what_is_judged_by_times_is_measured_anew() -> None:
    records: Records = {}
    gates = [{"metric": "GenerationSeconds", "operator": "LessThan", "threshold": "60"}]
    timed = EVALUATE | {"gates": gates}
    times = Report(results=[MetricResult(metric=Metric.GENERATION_SECONDS, value="9", samples=64)])
    first = applied([TRAIN, timed, OPTIMIZE], records)
    compute(first)
    compute(first, times)
    compute(first)
    sim = applied([TRAIN, timed, OPTIMIZE], records)
    assert sim.status().phases[0].reused_from
    assert compute(sim, times) == "validate"
    assert sim.status().phases[2].reused_from, "which does not depend on what was measured before"
    assert sim.top() == ("True", Reason.COMPLETED)


def test_other_inputs_find_nothing() -> None:
    records: Records = {}
    compute(applied([TRAIN], records))
    recipe = applied([TRAIN], {}).run()["spec"]["recipe"]
    assert applied([TRAIN], records, recipe=recipe | {"seed": 1}).current_job()
    sim = Simulation(phases=[TRAIN])
    sim.records, sim.digests = records, {("clips", "1"): "sha256:" + "d" * 64}
    sim.settle()
    assert sim.current_job()


def test_without_a_key_nothing_is_reused() -> None:
    records: Records = {}
    compute(applied([TRAIN], records))
    sim = Simulation(phases=[TRAIN])
    sim.records, sim.seals = records, Seals()
    sim.settle()
    assert not sim.preflight_files["run-train-0"].look_up
    assert sim.current_job()


def test_a_look_up_that_is_lost_is_repeated_and_one_that_fails_costs_the_reuse_alone() -> None:
    records: Records = {}
    first = applied([TRAIN, EVALUATE], records)
    compute(first)
    compute(first)
    sim = Simulation(phases=[TRAIN, EVALUATE])
    train = {key: record for key, record in records.items() if record["phase"] == "train"}
    sim.records, sim.preflight = train, None
    sim.settle()
    sim.records = {}
    assert sim.status().preflight
    record = next(iter(train.values()))
    found = Report(preflight=PreflightResult(), record=record).model_dump_json(by_alias=True, exclude_none=True)
    sim.set_preflight(ended(0, found))
    sim.settle()
    (lost,) = sim.preflights()
    assert sim.preflight_files["run-validate-0"].look_up
    sim.set_preflight(ended(75, Report(reason=Reason.PREEMPTED, message="evicted").model_dump_json(by_alias=True)))
    sim.settle()
    assert sim.jobs() == ()
    sim.step(400)
    sim.settle()
    assert sim.preflights() != (lost,), "the lost one is deleted, and there is another one"
    sim.set_preflight(ended(64, Report(reason=Reason.INVALID_JOB, message="no").model_dump_json(by_alias=True)))
    sim.settle()
    assert sim.current_job()["metadata"]["name"] == "run-validate-1"


def test_a_suspension_ends_a_look_up_and_it_is_repeated() -> None:
    records: Records = {}
    compute(applied([TRAIN, EVALUATE], records))
    sim = Simulation(phases=[CURATE, TRAIN])
    sim.records = records
    sim.settle()
    sim.preflight = None
    sim.records = {}
    compute(sim)
    assert len(sim.preflights()) == 1
    sim.spec(suspend=True)
    sim.settle()
    assert sim.status().phases[1].suspend_time
    assert sim.preflights() == ()
    sim.records = records
    sim.preflight = ended(0, passed())
    sim.spec(suspend=False)
    sim.settle()
    assert sim.status().phases[1].reused_from
    assert sim.top() == ("True", Reason.COMPLETED)


@pytest.mark.parametrize(
    "report, said",
    [
        (Report(reason=Reason.DIVERGED), "the report says Diverged"),
        (trained(), "no digest of a dataset"),
    ],
)
def test_an_unfinished_or_an_unclear_result_is_not_sealed(report: Report, said: str) -> None:
    sim = applied([TRAIN], {})
    sim.set_pods(running())
    sim.settle()
    with pytest.raises(ValueError, match=said):
        sim.keep(report)


def test_only_the_first_pod_of_the_attempt_at_work_has_its_result_sealed() -> None:
    workers = {"workers": {"replicas": 2}}
    sim = applied([TRAIN | workers], {})
    sim.set_pods(running())
    sim.settle()
    report = {"report": trained().model_copy(update={"datasets": USED}).model_dump(mode="json", by_alias=True)}
    assert TRAINING_RUN.record
    first, second = sim.pods()
    assert TRAINING_RUN.record(sim.world, first, report, sim.now)["phase"] == "train"
    forged = {"metadata": first["metadata"] | {"uid": "another"}}
    for pod in (second, forged):
        with pytest.raises(ValueError, match="not the first one of the attempt"):
            TRAINING_RUN.record(sim.world, pod, report, sim.now)
    for said in ({}, {"report": []}, [], {"report": {"lastStep": "many"}}):
        with pytest.raises(ValueError, match="report"):
            TRAINING_RUN.record(sim.world, first, said, sim.now)
    sim.set_pods(ended(75, Report(reason=Reason.PREEMPTED).model_dump_json(by_alias=True)))
    sim.settle()
    with pytest.raises(ValueError, match="not the first one of the attempt"):
        TRAINING_RUN.record(sim.world, first, report, sim.now)
    sim.world.remove(sim.run())
    with pytest.raises(ValueError, match="the pod's run is gone"):
        TRAINING_RUN.record(sim.world, first, report, sim.now)
