"""Collection targets of cycles in virtual time: what runs are told, and what becomes of a time with too few new clips."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from videogen_api.fine_tune_cycle import Outcome
from videogen_api.training_run import TrainingRunSpec
from videogen_operator.kinds.fine_tune_cycle import FINE_TUNE_CYCLE
from videogen_testing.cycle_simulation import TEMPLATE, Simulation, a_cycle
from videogen_testing.runs import DIGEST

MONDAYS = [datetime(2026, 1, day, 3, tzinfo=UTC) for day in (5, 12, 19, 26)]
RUNS = [f"weekly-{moment:%Y%m%d}-0300" for moment in MONDAYS]
HOUR = timedelta(hours=1)


def curate(dataset: str = "pib", **changes: Any) -> dict[str, Any]:
    block = {"dataset": dataset, "version": "$(date)", "sources": [{"path": "raw"}]} | changes
    return {"name": f"curate-{dataset}", "task": "Curate", "curate": block}


def collecting(*phases: dict[str, Any], **spec: Any) -> dict[str, Any]:
    data = [{"dataset": "pib", "version": "$(date)"}]
    template = TEMPLATE | {"phases": [*(phases or (curate(),)), {"name": "train", "task": "Train", "data": data}]}
    return a_cycle(runTemplate={"spec": template}, **spec)


def target(dataset: str = "pib", minimum: int = 1000, **more: Any) -> dict[str, Any]:
    return {"dataset": dataset, "minimum": minimum} | more


def counted(sim: Simulation, run: str, found: int, outcome: str | None = "Completed", dataset: str = "pib") -> dict[str, Any]:
    """What the run's status says of a Curate phase that has counted."""
    (block,) = (phase["curate"] for phase in sim.objects["TrainingRun", run]["spec"]["phases"] if phase["name"] == f"curate-{dataset}")
    wanted = block["newClips"]
    new = {"found": found} | {name: wanted[name] for name in ("minimum", "previous") if name in wanted}
    made = {"dataset": dataset, "version": block["version"], "digest": DIGEST, "clips": 5000}
    phase = {"name": f"curate-{dataset}", "begun": True, "newClips": new}
    return phase | ({"outcome": outcome} if outcome else {}) | ({"datasets": [made]} if outcome == "Completed" else {})


def begin(sim: Simulation, monday: int) -> str:
    """The time goes on to a Monday, and the cycle makes its run."""
    sim.until(MONDAYS[monday] + timedelta(minutes=1), end="keep")
    return RUNS[monday]


def asked(sim: Simulation, run: str, phase: int = 0) -> dict[str, Any] | None:
    block: dict[str, Any] | None = sim.objects["TrainingRun", run]["spec"]["phases"][phase]["curate"].get("newClips")
    return block


def succeed(sim: Simulation, run: str, found: int = 1200) -> None:
    sim.end(run, phases=[counted(sim, run, found)])
    sim.settle()


def too_few(sim: Simulation, run: str, found: int) -> None:
    """The run's Curate phase has failed for good."""
    said = f"curate-pib: curate.newClips.minimum: {found} new clips"
    sim.end(run, succeeded=False, reason="TooFewNewClips", message=said, phases=[counted(sim, run, found, "TooFewNewClips")])
    sim.settle()


def waiting(sim: Simulation, run: str, found: int) -> None:
    """The run's Curate phase asks again later."""
    condition = {"type": "Succeeded", "status": "Unknown", "reason": "TooFewNewClips", "message": f"curate-pib: {found} new clips"}
    sim.objects["TrainingRun", run]["status"] = {"conditions": [condition], "phases": [counted(sim, run, found, None)]}
    sim.settle()


def below_target(sim: Simulation) -> float:
    """What Prometheus is told."""
    gauges = {gauge.name: value for gauge, _, value in FINE_TUNE_CYCLE.samples(sim.objects["FineTuneCycle", "weekly"])}
    return gauges["videogen_cycle_collection_below_target"]


def test_a_run_counts_from_the_version_of_the_last_successful_run() -> None:
    sim = Simulation(collecting(collect=[target(target=2000)]))
    assert asked(sim, begin(sim, 0)) == {"minimum": 1000, "whenBelow": "Wait"}, "before the first success all clips are new"
    succeed(sim, RUNS[0])
    assert asked(sim, begin(sim, 1)) == {"previous": "2026-01-05", "minimum": 1000, "whenBelow": "Wait"}
    sim.end(RUNS[1], succeeded=False, reason="GateFailed", phases=[counted(sim, RUNS[1], 1500)])
    assert asked(sim, begin(sim, 2)) == {"previous": "2026-01-05", "minimum": 1000, "whenBelow": "Wait"}, "a failure used no clips"
    TrainingRunSpec.model_validate(sim.objects["TrainingRun", RUNS[2]]["spec"])


def test_the_version_to_compare_with_is_known_after_its_run_is_deleted() -> None:
    sim = Simulation(collecting(collect=[target()], successfulRunsHistoryLimit=0))
    succeed(sim, begin(sim, 0))
    assert ("TrainingRun", RUNS[0]) not in sim.objects
    assert (asked(sim, begin(sim, 1)) or {})["previous"] == "2026-01-05"


def test_a_time_that_is_to_be_skipped_is_skipped_and_the_next_one_comes() -> None:
    sim = Simulation(collecting(collect=[target(target=2000, whenBelow="Skip")]))
    succeed(sim, begin(sim, 0), 2500)
    assert sim.says("CollectionBelowTarget") == ("", "", "")
    assert (asked(sim, begin(sim, 1)) or {})["whenBelow"] == "Fail"
    too_few(sim, RUNS[1], 37)
    assert sim.outcomes() == [Outcome.SUCCEEDED, Outcome.SKIPPED]
    assert sim.status().history[-1].message == "curate-pib: curate.newClips.minimum: 37 new clips"
    told = f"dataset pib has 37 new clips since 2026-01-05; the minimum is 1,000 and the target 2,000; run {RUNS[1]} did not go on"
    assert sim.says("CollectionBelowTarget") == ("True", "BelowMinimum", told)
    assert below_target(sim) == 1
    assert sim.says("LastRunSucceeded")[:2] == ("True", "Succeeded"), "a time that is skipped is no failure"
    assert sim.says()[1] == "Scheduled"
    succeed(sim, begin(sim, 2), 2000)
    assert sim.says("CollectionBelowTarget") == ("", "", "")
    assert below_target(sim) == 0
    assert sim.outcomes()[-1] == Outcome.SUCCEEDED


def test_a_run_that_was_skipped_and_is_retried_is_the_run_at_work_again() -> None:
    sim = Simulation(collecting(collect=[target(whenBelow="Skip")]))
    too_few(sim, begin(sim, 0), 37)
    waiting(sim, RUNS[0], 1001)
    current = sim.status().current
    assert current is not None
    assert (current.run, sim.outcomes()) == (RUNS[0], [])
    succeed(sim, RUNS[0], 1001)
    assert sim.outcomes() == [Outcome.SUCCEEDED]


def test_a_run_that_waits_stays_at_work_and_says_what_is_missing() -> None:
    sim = Simulation(collecting(collect=[target(target=2000)]))
    succeed(sim, begin(sim, 0), 2500)
    waiting(sim, begin(sim, 1), 37)
    words = "dataset pib has 37 new clips since 2026-01-05; the minimum is 1,000 and the target 2,000"
    assert sim.says("CollectionBelowTarget") == ("True", "BelowMinimum", f"{words}; run {RUNS[1]} waits for more")
    current = sim.status().current
    assert current is not None
    assert (current.run, current.state) == (RUNS[1], "TooFewNewClips")
    waiting(sim, RUNS[1], 1999)
    sim.objects["TrainingRun", RUNS[1]]["status"]["phases"] = [counted(sim, RUNS[1], 1999)]
    sim.settle()
    words = "dataset pib has 1,999 new clips since 2026-01-05; the minimum is 1,000 and the target 2,000"
    assert sim.says("CollectionBelowTarget") == ("True", "BelowTarget", f"{words}; run {RUNS[1]} goes on")
    succeed(sim, RUNS[1], 1999)
    assert sim.says("CollectionBelowTarget") == ("True", "BelowTarget", f"{words}; run {RUNS[1]} went on")
    sim.edit(collect=[])
    sim.settle()
    assert sim.says("CollectionBelowTarget") == ("", "", "")


def test_a_wait_without_end_fails_when_the_phase_must_be_done() -> None:
    sim = Simulation(collecting(collect=[target()]))
    waiting(sim, begin(sim, 0), 37)
    sim.end(RUNS[0], succeeded=False, reason="DeadlineExceeded", phases=[counted(sim, RUNS[0], 37, "DeadlineExceeded")])
    sim.settle()
    assert sim.outcomes() == [Outcome.FAILED]
    assert sim.says("CollectionBelowTarget")[1:] == (
        "BelowMinimum",
        f"dataset pib has 37 new clips; the minimum is 1,000 and the target 1,000; run {RUNS[0]} did not go on",
    )


def test_without_new_data_a_time_is_skipped_and_named_datasets_go_by_collect() -> None:
    sim = Simulation(collecting(curate(), curate("shapes"), skipIfNoNewData=True, collect=[target("shapes", 0)]))
    run = begin(sim, 0)
    assert asked(sim, run) == {"minimum": 1, "whenBelow": "Fail"}
    assert asked(sim, run, 1) == {"minimum": 0, "whenBelow": "Wait"}
    too_few(sim, run, 0)
    assert sim.outcomes() == [Outcome.SKIPPED]
    words = f"dataset pib has 0 new clips; the minimum is 1 and the target 1; run {run} did not go on"
    assert sim.says("CollectionBelowTarget") == ("True", "BelowMinimum", words)


def test_a_run_that_somebody_asks_for_counts_and_takes_what_there_is() -> None:
    sim = Simulation(collecting(collect=[target(whenBelow="Skip")]))
    succeed(sim, begin(sim, 0))
    sim.request("run-now@hotfix")
    sim.settle()
    current = sim.status().current
    assert current is not None
    assert asked(sim, current.run) == {"previous": "2026-01-05", "minimum": 0, "whenBelow": "Fail"}


def test_nothing_is_counted_without_targets() -> None:
    sim = Simulation(collecting())
    assert asked(sim, begin(sim, 0)) is None
    own = Simulation(collecting(curate(newClips={"minimum": 5})))
    assert asked(own, begin(own, 0)) == {"minimum": 5}, "a template may count without the cycle"


def test_the_placeholder_of_the_previous_dataset_is_the_version_that_was_used() -> None:
    sim = Simulation(collecting(curate(parent="$(previousDataset)"), collect=[target()]))
    assert "parent" not in sim.objects["TrainingRun", begin(sim, 0)]["spec"]["phases"][0]["curate"]
    used = counted(sim, RUNS[0], 1200)
    used["datasets"][0] |= {"version": "2025-12-01", "inPlaceOf": "2026-01-05"}
    sim.end(RUNS[0], phases=[used])
    sim.settle()
    block = sim.objects["TrainingRun", begin(sim, 1)]["spec"]["phases"][0]["curate"]
    assert (block["parent"], block["newClips"]["previous"]) == ("2025-12-01", "2025-12-01")


@pytest.mark.parametrize(
    ("cycle", "words"),
    [
        (
            collecting(collect=[target("clips")]),
            "spec.collect[0].dataset: no Curate phase of the template makes clips; there are Curate phases for pib",
        ),
        (
            a_cycle(collect=[target()]),
            "spec.collect[0].dataset: no Curate phase of the template makes pib; there is no Curate phase",
        ),
        (
            collecting(curate(newClips={"minimum": 5}), skipIfNoNewData=True),
            "spec.runTemplate.spec.phases.0.curate.newClips is set by the cycle, which has collect or skipIfNoNewData; leave it out",
        ),
    ],
)
def test_targets_that_do_not_fit_the_template_are_said_when_they_are_written(cycle: dict[str, Any], words: str) -> None:
    sim = Simulation(cycle)
    sim.settle()
    assert sim.says() == ("False", "CollectInvalid", words)
    assert sim.says("Stalled")[1] == "CollectInvalid"
    sim.until(MONDAYS[0] + HOUR)
    assert sim.created == []
