"""Tune phases in a closed loop: what they find is on the status and in the jobs of the phases after them."""

from typing import Any

import pytest

from videogen_api.evaluation import Metric
from videogen_api.job import ExitCode, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.noise_shares import residual_of
from videogen_api.training_run import Reason
from videogen_api.tuning import Trial, TunedParameter, TuningParameter
from videogen_testing.run_simulation import RandomLife, Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, TUNE, ended, running, trained, tuned


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def succeed(sim: Simulation, report: Report) -> None:
    sim.set_pods(ended(0, text(report)))
    sim.settle()


def shares(sim: Simulation, job: str) -> tuple[str, str]:
    fusion = sim.files[job].recipe.fusion
    return fusion.base_share, residual_of(fusion.base_share)


def test_what_a_tune_phase_chose_is_trained_with_and_shown() -> None:
    sim = Simulation(phases=[TUNE, TRAIN, EVALUATE])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    assert sim.top() == ("Unknown", Reason.TUNING)
    job = sim.files["run-tune-1"]
    assert job.tune and job.tune.values == ["0.65", "0.70", "0.75"]
    assert shares(sim, "run-tune-1") == ("0.70", "0.30")
    report = tuned("0.65")
    succeed(sim, report)
    (phase,) = (one for one in sim.status().phases if one.name == "tune")
    assert (phase.outcome, phase.trials, phase.message) == (Reason.COMPLETED, report.trials, report.message)
    assert sim.status().tuned == [TunedParameter(parameter=TuningParameter.BASE_NOISE_SHARE, value="0.65")]
    assert sim.status().artifact is None, "the weights of trials are nobody's"
    assert shares(sim, "run-train-1") == ("0.65", "0.35")
    assert sim.run()["spec"]["recipe"].get("videoFusion") is None, "the spec stays what the user wrote"
    succeed(sim, trained())
    assert shares(sim, "run-validate-1") == ("0.65", "0.35")


def test_while_it_searches_the_message_says_which_trial_it_is_at() -> None:
    sim = Simulation(phases=[TUNE, TRAIN])
    sim.settle()
    sim.set_pods(running())
    told = {"step": "14", "steps": "30", "loss": "0.08", "trial": "2 of 3, baseNoiseShare 0.70", "checkpointStep": "10"}
    metrics = [{"name": name, "value": value} for name, value in told.items()]
    sim.progress = {
        sim.pods()[0]["metadata"]["uid"]: {"progressPercentage": 40, "metrics": metrics, "lastUpdatedTime": "2026-11-01T00:00:00Z"}
    }
    sim.settle()
    (condition,) = (one for one in sim.status().conditions if one.type == "Succeeded")
    assert condition.message == "tune: trial 2 of 3, baseNoiseShare 0.70, step 14 of 30, loss 0.08"
    assert sim.status().phases[0].checkpoint_step == 10


def test_a_search_begins_with_the_bundle_of_an_earlier_train_phase() -> None:
    sim = Simulation(phases=[TRAIN, TUNE, {**TRAIN, "name": "again"}])
    sim.settle()
    made = trained()
    succeed(sim, made)
    assert made.artifact
    assert sim.files["run-tune-1"].init_from == made.artifact
    assert sim.files["run-tune-1"].artifact is None
    succeed(sim, tuned("0.75"))
    assert sim.files["run-again-1"].init_from == made.artifact
    assert (shares(sim, "run-train-1"), shares(sim, "run-again-1")) == (("0.70", "0.30"), ("0.75", "0.25"))


def test_fine_tuning_learns_with_what_a_tune_phase_chose() -> None:
    sim = Simulation(phases=[TRAIN, TUNE, {**TRAIN, "name": "tender", "task": "FineTune"}])
    sim.settle()
    succeed(sim, trained())
    succeed(sim, tuned("0.75"))
    assert shares(sim, "run-tender-1") == ("0.75", "0.25")


def test_of_two_searches_the_later_one_counts_and_begins_with_the_values_of_the_first() -> None:
    sim = Simulation(phases=[TUNE, {**TUNE, "name": "finer"}, TRAIN])
    sim.settle()
    succeed(sim, tuned("0.75"))
    assert shares(sim, "run-finer-1") == ("0.75", "0.25"), "of equal trials the nearest to this one is taken"
    succeed(sim, tuned("0.70"))
    assert [one.value for one in sim.status().tuned] == ["0.70"]
    assert shares(sim, "run-train-1") == ("0.70", "0.30")


def test_an_interrupted_search_is_gone_on_with_and_has_chosen_nothing_yet() -> None:
    sim = Simulation(phases=[TUNE, TRAIN])
    sim.settle()
    sim.set_pods(ended(ExitCode.PREEMPTED, text(Report(reason=Reason.PREEMPTED, message="SIGTERM", last_step=14))))
    sim.settle()
    assert "the next attempt resumes from step 14" in str(sim.run()["status"]["conditions"])
    assert sim.status().tuned == []
    sim.step(3)
    sim.settle()
    assert sim.files["run-tune-2"].work_path == sim.files["run-tune-1"].work_path


def test_a_report_without_a_choice_is_no_success() -> None:
    sim = Simulation(phases=[{**TUNE, "attempts": 1}, TRAIN])
    sim.settle()
    succeed(sim, Report(trials=[Trial(value="0.65", metric=Metric.FVD, result="1")]))
    assert sim.top() == ("False", Reason.ATTEMPTS_EXHAUSTED)


def test_a_search_that_diverged_is_tried_again_at_half_the_rate() -> None:
    sim = Simulation(phases=[TUNE, TRAIN])
    sim.settle()
    sim.set_pods(ended(ExitCode.DIVERGED, text(Report(reason=Reason.DIVERGED, message="every trial diverged"))))
    sim.settle()
    sim.step(400)
    sim.settle()
    assert sim.files["run-tune-2"].learning_rate_scale == "0.5"
    succeed(sim, tuned())
    assert sim.files["run-train-1"].learning_rate_scale == "1"


def test_a_retry_by_hand_of_the_train_phase_keeps_what_was_chosen() -> None:
    sim = Simulation(phases=[TUNE, {**TRAIN, "attempts": 1}])
    sim.settle()
    succeed(sim, tuned("0.75"))
    sim.set_pods(ended(1, "boom"))
    sim.settle()
    assert sim.top() == ("False", Reason.ATTEMPTS_EXHAUSTED)
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    for _ in range(3):
        sim.step(400)
    sim.settle()
    assert shares(sim, "run-train-2") == ("0.75", "0.25")


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_a_run_that_ends_well_trained_with_what_was_chosen(seed: int) -> None:
    phases: list[dict[str, Any]] = [{**TUNE, "attempts": 5}, {**TRAIN, "attempts": 5}, EVALUATE, RELEASE]
    sim = RandomLife(seed, phases=phases).live()
    if sim.top()[0] == "True":
        assert [one.value for one in sim.status().tuned] == ["0.65"]
        assert all(file.recipe.fusion.base_share == "0.65" for file in sim.files.values() if file.phase == "train")
