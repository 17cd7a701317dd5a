"""GPU hours of runs in virtual time: each pod counts once, whatever happens to it, to the operator or to a clock; and budgets hold."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from videogen_api.fine_tune_cycle import LABEL_CYCLE
from videogen_api.job import ExitCode, Report
from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.kinds.training_run.leftovers import reference
from videogen_testing.cycle_simulation import a_cycle
from videogen_testing.run_simulation import KEY, NODE, Simulation
from videogen_testing.runs import EVALUATE, TRAIN, ended, running, trained

DAY, HOUR = 86400.0, 3600.0
GPUS: dict[str, Any] = {"resources": {"limits": {"nvidia.com/gpu": 4}}}
PREEMPTED = Report(reason=Reason.PREEMPTED, last_step=5, bytes_written=1000)


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


class Metered(Simulation):
    """Pods that tell when they got their node and when they ended."""

    def __init__(self, workers: int = 2, budget: int | None = None, phases: list[Any] | None = None) -> None:
        super().__init__(phases=phases or [TRAIN | GPUS | {"workers": {"replicas": workers}}])
        self.writes = 0
        self.put(NODE | {"status": NODE["status"] | {"allocatable": {"cpu": "64", "memory": "64Gi", "nvidia.com/gpu": "8"}}})
        if budget is not None:
            self.give(budget)

    def give(self, hours: int | None) -> None:
        """The cycle of the run has this budget."""
        self.put(a_cycle(**({"budget": {"gpuHours": hours}} if hours else {})), "models")
        self.put(self.run(), labels={LABEL_CYCLE: "weekly"})

    def _carry_out(self, plan: Any) -> None:
        self.writes += len(plan.statuses)
        super()._carry_out(plan)

    def begin(self) -> None:
        self.settle()
        placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.now.isoformat()}
        self.set_pods(running() | {"conditions": [placed], "startTime": self.now.isoformat()})
        self.settle()

    def close(self, code: int = 0, report: Report | None = None, *, pod: int | None = None, node_clock: float = 0.0) -> None:
        """All pods of the job end, or one of them, as their node's clock tells."""
        status = ended(code, text(report or trained()))
        for place, one in enumerate(self.made[self.current_job()["metadata"]["name"]]):
            known = self.world.get("Pod", "models", one["metadata"]["name"])
            assert known
            if pod in {None, place} and known["status"]["phase"] == "Running":
                shift = timedelta(seconds=node_clock)
                started = datetime.fromisoformat(known["status"]["startTime"]) + shift
                status["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = (self.now + shift).isoformat()
                conditions = known["status"]["conditions"]
                self.put(dict(known) | {"status": status | {"conditions": conditions, "startTime": started.isoformat()}}, "models")

    def hours(self, phase: int = 0) -> str | None:
        return self.status().phases[phase].gpu_hours


def test_a_pod_counts_from_its_node_to_its_end_over_all_attempts() -> None:
    sim = Metered()
    sim.begin()
    sim.step(1 * HOUR)
    sim.close(ExitCode.PREEMPTED, PREEMPTED)
    sim.settle()
    sim.step(300)
    sim.begin()
    sim.step(0.5 * HOUR)
    sim.close(report=trained().model_copy(update={"bytes_written": 500}))
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.hours() == "12.0000"  # 2 pods of 4 GPUs, an hour and a half
    assert sim.status().phases[0].bytes_written == 2 * 1000 + 2 * 500


def test_a_pod_without_gpus_uses_none() -> None:
    sim = Metered(phases=[TRAIN])
    sim.begin()
    sim.step(HOUR)
    sim.close()
    sim.settle()
    assert (sim.hours(), sim.status().phases[0].gpu_time) == (None, None)


def test_a_pod_that_ends_after_the_others_counts_to_its_own_end() -> None:
    sim = Metered()
    sim.begin()
    sim.step(HOUR)
    sim.close(pod=0)
    sim.settle()
    sim.step(20)
    late = next(pod for pod in sim.pods() if pod["metadata"]["name"].endswith("-1"))
    status = dict(late["status"]) | ended(0, text(trained()))
    status["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = sim.now.isoformat()
    sim.put(dict(late) | {"status": status}, "models")
    sim.settle()
    assert sim.hours() == f"{int((8 * HOUR + 4 * 20) / HOUR * 10000) / 10000:.4f}"


def test_an_operator_that_was_away_counts_what_it_did_not_see() -> None:
    sim = Metered()
    sim.begin()
    sim.now += timedelta(hours=10)  # nobody looks; the pods end after five hours
    at, sim.now = sim.now, sim.now - timedelta(hours=5)
    sim.close()
    sim.now = at
    sim.settle()
    assert sim.hours() == "40.0000"


def test_pods_that_vanish_unseen_count_a_few_minutes_beyond_their_last_count_at_most() -> None:
    sim = Metered()
    sim.begin()
    sim.step(HOUR)
    job = sim.current_job()
    sim.now += timedelta(hours=10)
    sim._delete(reference(job))
    sim.step()
    assert sim.hours() == f"{int((8 * HOUR + 8 * 300) / HOUR * 10000) / 10000:.4f}"


@pytest.mark.parametrize("shift", [DAY, -DAY])
def test_a_node_whose_clock_is_a_day_off_changes_nothing(shift: float) -> None:
    sim = Metered(budget=20)
    sim.begin()
    sim.step(HOUR)
    sim.close(node_clock=shift)
    sim.settle()
    assert (sim.hours(), sim.top()[0]) == ("8.0000", "True")


def test_an_operator_that_starts_with_a_clock_a_day_behind_counts_right_in_the_end() -> None:
    sim = Metered(budget=20)
    sim.begin()
    sim.step(HOUR)
    sim.now -= timedelta(days=1)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.TRAINING)
    sim.now += timedelta(days=1)
    sim.close()
    sim.settle()
    assert sim.hours() == "8.0000"


def test_a_count_costs_a_write_every_few_minutes_and_no_more() -> None:
    sim = Metered()
    sim.begin()
    sim.settle()
    before = sim.writes
    for _ in range(3600):
        sim.step(1)
    assert sim.writes - before == 12
    assert sim.hours() == "8.0000"


def test_a_strangers_pod_with_the_labels_of_a_run_uses_nothing_of_it() -> None:
    sim = Metered(budget=20)
    sim.begin()
    (pod, _) = sim.pods()
    for name, owner in (
        ("run-train-1-worker-9", pod["metadata"]["ownerReferences"][0]),
        ("other-worker-0", {"uid": "other", "name": "other"}),
    ):
        reference = pod["metadata"]["ownerReferences"][0] | owner
        sim.put(
            {**pod, "metadata": {"name": name, "labels": pod["metadata"]["labels"], "ownerReferences": [reference]}}, "models", uid=name
        )
    sim.step(HOUR)
    assert sim.hours() == "8.0000"


def test_a_run_that_has_used_up_its_budget_is_stopped_at_that_moment_and_says_so() -> None:
    sim = Metered(budget=20)
    sim.begin()
    sim.step(2 * HOUR)
    plan = sim.step(100)
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 300
    sim.now += timedelta(seconds=HOUR / 2 - 101)
    plan = sim.step()
    assert (sim.top(), plan.requeue_after) == (("Unknown", Reason.TRAINING), 1.0)
    sim.step(1)
    assert sim.top() == ("Unknown", Reason.BUDGET_EXCEEDED)
    sim.settle()
    assert sim.jobs() == ()
    said = next(one.message for one in sim.status().conditions if one.type == "Succeeded")
    assert "has used 20.0000 of 20 GPU hours; raise budget.gpuHours of FineTuneCycle weekly, or delete the run" in said
    assert [(one.reason, one.counted) for one in sim.status().phases[0].attempts] == [(Reason.BUDGET_EXCEEDED, False)]
    assert not sim.run()["spec"].get("suspend"), "spec.suspend is people's"


def stopped() -> Metered:
    sim = Metered(budget=20)
    sim.begin()
    sim.step(3 * HOUR)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.BUDGET_EXCEEDED)
    return sim


@pytest.mark.parametrize("hours", [30, None])
def test_more_hours_let_it_go_on_from_where_it_was(hours: int | None) -> None:
    sim = stopped()
    sim.step(30 * DAY)
    sim.give(hours)
    sim.begin()
    assert sim.top() == ("Unknown", Reason.TRAINING)
    sim.step(HOUR / 4)
    sim.close()
    sim.settle()
    assert (sim.top(), sim.hours()) == (("True", Reason.COMPLETED), "26.0000")


def test_fewer_hours_than_it_has_used_stop_it_at_once() -> None:
    sim = Metered(budget=20)
    sim.begin()
    sim.step(HOUR)
    sim.give(8)
    sim.settle()
    assert (sim.top(), sim.jobs()) == (("Unknown", Reason.BUDGET_EXCEEDED), ())


def test_the_deletion_of_its_cycle_lets_no_stopped_run_go_on() -> None:
    sim = stopped()
    cycle = sim.world.get("FineTuneCycle", "models", "weekly")
    assert cycle
    sim.world.remove(cycle)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.BUDGET_EXCEEDED)
    sim.put(sim.run(), labels={})
    sim.settle()
    assert sim.top() == ("Unknown", Reason.STARTING), "who may edit the run may take it out of the cycle"


def test_suspended_by_a_person_too_it_goes_on_only_when_both_are_over() -> None:
    sim = stopped()
    sim.spec(suspend=True)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.SUSPENDED)
    sim.give(100)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.SUSPENDED)
    sim.spec(suspend=False)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.STARTING)


def test_work_that_was_done_counts_although_the_budget_is_used_up_and_nothing_more_begins() -> None:
    sim = Metered(budget=20, phases=[TRAIN | GPUS | {"workers": {"replicas": 2}}, EVALUATE | GPUS])
    sim.begin()
    sim.now += timedelta(hours=3)
    sim.close()
    sim.settle()
    assert [one.outcome for one in sim.status().phases][:1] == [Reason.COMPLETED]
    assert (sim.top(), len(sim.status().phases[1].attempts)) == (("Unknown", Reason.BUDGET_EXCEEDED), 0)


def test_a_change_of_a_cycle_wakes_its_runs_at_work() -> None:
    sim = Metered(budget=20)
    cycle = sim.world.get("FineTuneCycle", "models", "weekly")
    assert cycle
    assert list(TRAINING_RUN.keys(cycle, sim.world)) == [KEY]
    sim.begin()
    assert list(TRAINING_RUN.keys(cycle, sim.world)) == [KEY]
    sim.close()
    sim.settle()
    assert list(TRAINING_RUN.keys(cycle, sim.world)) == []
