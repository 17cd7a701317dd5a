"""Clocks that are wrong by a day, the operator's or another machine's: nothing fails for good, and nothing stands still."""

from datetime import timedelta
from typing import Any

import pytest

from videogen_api.job import ExitCode, Report
from videogen_api.training_run import Reason
from videogen_operator.steady_clock import SteadyClock
from videogen_testing import service_simulation
from videogen_testing.releases import a_release, an_alert, name_of
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN, ended, running, trained

DAY = 86400.0


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


class Leaping(Simulation):
    """A run whose operator's clock is set while it works: `now` is what its plans take for now."""

    def __init__(self, **run: Any) -> None:
        super().__init__(**run)
        self.seconds, self.start, self.set_by = 0.0, self.now, 0.0
        self.clock = SteadyClock(lambda: self.start + timedelta(seconds=self.seconds + self.set_by), lambda: self.seconds)
        self.clock()

    def step(self, seconds: float = 0.0) -> Any:
        self.seconds += seconds
        self.now = self.clock()
        return super().step()


@pytest.mark.parametrize("leap", [DAY, -DAY])
def test_a_leap_ends_no_phase_and_holds_up_no_attempt(leap: float) -> None:
    sim = Leaping(phases=[TRAIN | {"window": {"deadlineSeconds": 600}}])
    sim.settle()
    sim.set_pods(running())
    sim.step(100)
    sim.set_by = leap
    sim.step(100)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.TRAINING)
    sim.set_pods(ended(ExitCode.STORAGE_FAILED, text(Report(reason=Reason.STORAGE_FAILED, last_step=4))))
    sim.settle()
    sim.step(15)
    sim.settle()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-2"]
    sim.step(450)
    sim.settle()
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED), "the deadline itself still holds"


def set_back(sim: Simulation | service_simulation.Simulation) -> None:
    """The operator starts anew, on a machine whose clock is a day behind."""
    sim.now -= timedelta(seconds=DAY)


def test_a_back_off_lasts_no_day_after_a_start_with_an_earlier_clock() -> None:
    sim = Simulation()
    sim.settle()
    sim.set_pods(ended(1))
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RETRYING)
    set_back(sim)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.STARTING)


def test_a_deadline_is_no_shorter_and_progress_is_shown_after_a_start_with_an_earlier_clock() -> None:
    sim = Simulation(phases=[TRAIN | {"window": {"deadlineSeconds": 600}}])
    sim.settle()
    sim.set_pods(running())
    uid = sim.pods()[0]["metadata"]["uid"]

    def tell(step: str) -> str:
        sim.progress = {uid: {"metrics": [{"name": "step", "value": step}], "lastUpdatedTime": sim.now.isoformat()}}
        sim.settle()
        return sim.status().summary.step if sim.status().summary else ""

    assert tell("5") == "5"
    set_back(sim)
    assert tell("6") == "6"
    assert sim.top() == ("Unknown", Reason.TRAINING)


def test_a_worker_that_lost_the_others_is_believed_although_its_nodes_clock_is_a_day_ahead() -> None:
    sim = Simulation(phases=[TRAIN | {"workers": {"replicas": 2}}])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    lost = ended(ExitCode.PEER_LOST, text(Report(reason=Reason.NODE_LOST, message="no answer")))
    lost["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = (sim.now + timedelta(seconds=DAY)).isoformat()
    sim.put(sim.pods()[0] | {"status": lost})
    sim.settle()
    assert sim.status().phases[0].attempts[0].reason == Reason.NODE_LOST


def test_a_hanging_worker_is_stopped_although_the_clock_was_set_back() -> None:
    sim = Simulation(phases=[TRAIN | {"workers": {"replicas": 2}}])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    sim.put(sim.pods()[1] | {"status": ended(0, text(trained()))})
    sim.settle()
    set_back(sim)
    sim.step()
    assert sim.jobs() == ()


@pytest.mark.parametrize("ahead", [DAY, -DAY])
def test_a_run_whose_creation_lies_a_day_away_is_looked_at(ahead: float) -> None:
    sim = Simulation(storage={"claimName": "late"})
    sim.put(sim.run(), creationTimestamp=(sim.now + timedelta(seconds=ahead)).isoformat())
    sim.step()
    assert sim.top() == ("Unknown", Reason.CLAIM_NOT_FOUND)


OLD, NEW = "1.0.0", "1.1.0"


def rollout_to(state: str) -> service_simulation.Simulation:
    """1.1.0 has come so far beside 1.0.0, which was stable, when the operator starts anew with an earlier clock."""
    service = service_simulation.Simulation(a_release(OLD))
    service.until(OLD, "Stable")
    service.put(a_release(NEW, at=service.now))
    service.until(NEW, state)
    service.tick(2)
    set_back(service)
    return service


def test_a_canary_goes_on_after_a_start_with_an_earlier_clock() -> None:
    rollout_to("Canary").until(NEW, "Stable", limit=60)


@pytest.mark.parametrize("state", ["Canary", "Stable"])
def test_a_bad_release_is_rolled_back_after_a_start_with_an_earlier_clock(state: str) -> None:
    service = rollout_to(state)
    service.errors[NEW] = 0.5
    service.until(NEW, "RolledBack", limit=10)


def test_lost_pods_have_their_deadline_after_a_start_with_an_earlier_clock() -> None:
    service = rollout_to("Stable")
    service.now += timedelta(seconds=DAY)
    service.broken.add(NEW)
    service.tick(2)
    set_back(service)
    service.until(NEW, "RolledBack", limit=40)


def test_an_alert_counts_that_began_before_a_start_with_an_earlier_clock() -> None:
    service = rollout_to("Canary")
    service.alerts.append(an_alert(name_of(NEW), at=service.now - timedelta(seconds=30), name="VideogenReleaseErrorsHigh"))
    service.errors[NEW] = 0.5
    service.tick()
    assert service.answers == {"/VideogenReleaseErrorsHigh/" + name_of(NEW): "RolledBack"}


def test_a_release_that_does_not_start_is_given_up_after_a_start_with_an_earlier_clock() -> None:
    service = service_simulation.Simulation(a_release(OLD))
    service.broken.add(OLD)
    service.tick(3)
    set_back(service)
    service.until(OLD, "Failed", limit=60)
