"""TrainingRuns with an Optimize phase in a closed loop: which bundle is the run's, and when."""

from typing import Any

import pytest

from videogen_api.evaluation import Verdict
from videogen_api.job import ExitCode, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.training_run import Reason
from videogen_testing.run_simulation import RandomLife, Simulation
from videogen_testing.runs import DIGEST, EVALUATE, OPTIMIZE, RELEASE, TRAIN, ended, optimized, trained

SMALLER = "sha256:" + "b" * 64
GATE = {"metric": "FVD", "operator": "LessThan", "threshold": "110"}


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def optimizing(*later: dict[str, Any], **optimize: Any) -> Simulation:
    """A run whose training is done and whose optimisation is at work."""
    sim = Simulation(phases=[TRAIN, OPTIMIZE | optimize, *later])
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    return sim


def digest_of(sim: Simulation) -> str:
    artifact = sim.status().artifact
    assert artifact is not None
    return artifact.digest


def test_the_bundle_is_optimised_measured_again_and_released() -> None:
    sim = optimizing(EVALUATE, RELEASE)
    assert sim.top() == ("Unknown", Reason.STARTING)
    job = sim.files["run-optimize-1"]
    assert job.artifact is not None
    assert (job.artifact.digest, job.init_from) == (DIGEST, None)
    assert job.optimize is not None
    assert job.optimize.maximum_loss[0].maximum == "5"
    sim.set_pods(ended(0, text(optimized())))
    sim.settle()
    assert digest_of(sim) == SMALLER
    done = sim.status().phases[1]
    assert done.message == f"bundle {SMALLER}: Int8Weights has 26 % of the bytes; 1 of 1 bounds of maximumLoss passed"
    assert done.optimization is not None
    assert (done.optimization.optimized_bytes, done.optimization.losses[0].verdict) == (260, Verdict.PASSED)
    measured = sim.files["run-validate-1"].artifact
    assert measured is not None
    assert measured.digest == SMALLER
    sim.set_pods(ended(0, text(Report(results=optimized().results))))
    sim.settle()
    (release,) = sim.world.list("ModelRelease", "models")
    assert release["spec"]["artifact"]["digest"] == SMALLER
    assert release["spec"]["gates"][0]["threshold"] == "200"


def test_an_optimisation_that_costs_too_much_fails_and_the_run_keeps_its_bundle() -> None:
    sim = optimizing(EVALUATE, RELEASE)
    sim.set_pods(ended(0, text(optimized(loss="7.5"))))
    sim.settle()
    assert sim.top() == ("False", Reason.GATE_FAILED)
    assert digest_of(sim) == DIGEST
    failed = sim.status().phases[1]
    assert "FVD was 100 and became worse by 7.5 (0.5 to 2.5), optimize.maximumLoss allows 5" in failed.message
    assert failed.optimization is not None
    assert failed.optimization.losses[0].verdict == Verdict.FAILED
    assert sim.world.list("ModelRelease", "models") == ()
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert sim.status().phases[1].optimization is None
    again = sim.files["run-optimize-2"].artifact
    assert again is not None
    assert again.digest == DIGEST


def test_an_optimisation_with_gates_of_its_own_may_be_released_at_once() -> None:
    sim = Simulation(phases=[TRAIN, EVALUATE, OPTIMIZE | {"gates": [GATE]}, RELEASE])
    for report in (trained(), Report(results=optimized().results), optimized()):
        sim.settle()
        sim.set_pods(ended(0, text(report)))
    sim.settle()
    (release,) = sim.world.list("ModelRelease", "models")
    assert release["spec"]["artifact"]["digest"] == SMALLER
    assert [gate["threshold"] for gate in release["spec"]["gates"]] == ["110"]


@pytest.mark.parametrize("reason", [Reason.EXPORT_FAILED, Reason.TENSORRT_UNAVAILABLE])
def test_an_export_that_cannot_be_is_not_tried_again(reason: Reason) -> None:
    sim = optimizing()
    sim.set_pods(ended(ExitCode.EXPORT_FAILED, text(Report(reason=reason, message="the network video-unet ..."))))
    sim.settle()
    assert sim.top() == ("False", reason)
    assert "the network video-unet" in sim.status().phases[1].message
    assert digest_of(sim) == DIGEST


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_what_is_released_is_the_optimised_bundle(seed: int) -> None:
    sim = RandomLife(seed, phases=[TRAIN, OPTIMIZE | {"attempts": 5}, EVALUATE, RELEASE]).live()
    status, reason = sim.top()
    assert status == "True" or reason in {Reason.ATTEMPTS_EXHAUSTED, Reason.STORAGE_FAILED}
    for release in sim.world.list("ModelRelease", "models"):
        assert release["spec"]["artifact"]["digest"] == SMALLER
