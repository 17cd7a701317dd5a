"""What a run leaves behind: jobs and pods for a while, checkpoints until their phase is done."""

import pytest

from videogen_api.job import ExitCode, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.training_run import Reason
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, TRAIN, TUNE, ended, running, trained, tuned

WEEK = 604800


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def left(sim: Simulation) -> tuple[int, int]:
    return len(sim.jobs()), len(sim.pods())


@pytest.mark.parametrize(
    "end, top",
    [
        (ended(0, text(trained())), ("True", Reason.COMPLETED)),
        (ended(ExitCode.INVALID_JOB, text(Report(reason=Reason.INVALID_JOB))), ("False", Reason.INVALID_JOB)),
    ],
    ids=["a run that succeeded", "a run that failed"],
)
def test_jobs_and_pods_stay_for_a_week_and_the_run_for_ever(end: dict[str, object], top: tuple[str, Reason]) -> None:
    sim = Simulation()
    sim.settle()
    sim.set_pods(end)
    sim.settle()
    plan = sim.step(WEEK - 10)
    assert (left(sim), plan.requeue_after) == ((1, 1), 10)
    sim.step(10)
    assert (left(sim), sim.top()) == ((0, 0), top)
    sim.settle()
    last = sim.step(WEEK)
    assert (last.delete, last.statuses, last.requeue_after) == ((), (), None)


def test_the_time_may_be_changed_at_any_time() -> None:
    sim = Simulation(ttlSecondsAfterFinished=0)
    sim.settle()
    sim.spec(ttlSecondsAfterFinished=WEEK)
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    assert left(sim) == (1, 1)
    sim.spec(ttlSecondsAfterFinished=0)
    sim.settle()
    assert left(sim) == (0, 0)


def test_a_run_that_works_loses_nothing() -> None:
    sim = Simulation(phases=[TRAIN, EVALUATE], ttlSecondsAfterFinished=0)
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    sim.set_pods(running())
    sim.step(WEEK)
    assert left(sim) == (2, 2)


def test_a_failed_run_whose_jobs_are_gone_can_be_tried_again() -> None:
    sim = Simulation(ttlSecondsAfterFinished=60)
    sim.settle()
    sim.set_pods(ended(ExitCode.INVALID_JOB, text(Report(reason=Reason.INVALID_JOB))))
    sim.settle()
    sim.step(60)
    assert left(sim) == (0, 0)
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-2"]


def finished(sim: Simulation, job: str) -> list[str]:
    return [path.rpartition("/")[2] for path in sim.files[job].finished]


def test_the_checkpoints_of_phases_that_are_done_and_of_no_others_may_go() -> None:
    sim = Simulation(phases=[TUNE, TRAIN, TRAIN | {"name": "more"}, EVALUATE])
    sim.settle()
    sim.set_pods(ended(0, text(tuned())))
    sim.settle()
    sim.set_pods(ended(ExitCode.PREEMPTED, text(Report(reason=Reason.PREEMPTED, last_step=4))))
    sim.settle()
    sim.step(10)
    sim.settle()
    for _ in range(2):
        sim.set_pods(ended(0, text(trained())))
        sim.settle()
    assert [finished(sim, f"run-{job}") for job in ("tune-1", "train-1", "train-2", "more-1", "validate-1")] == [
        [], ["tune"], ["tune"], ["tune", "train"], ["tune", "train", "more"],
    ]  # fmt: skip
    assert all(path.startswith(f"runs/run-{sim.run()['metadata']['uid'][:8]}/") for path in sim.files["run-validate-1"].finished)


def test_whoever_wants_to_keep_checkpoints_keeps_them() -> None:
    sim = Simulation(phases=[TRAIN, EVALUATE], checkpointRetention="Always")
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    assert finished(sim, "run-validate-1") == []
