"""What goes wrong around FineTuneCycles: clocks put back, refusals, people who retry, take away and ask again at the wrong moment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from videogen_api.fine_tune_cycle import LABEL_CYCLE, Outcome
from videogen_api.meta import API_VERSION
from videogen_operator.kinds.fine_tune_cycle.schedule import schedule
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Failure
from videogen_testing.cycle_simulation import START, TEMPLATE, Crashed, Simulation, a_cycle, a_release

MONDAYS = [datetime(2026, 1, day, 3, tzinfo=UTC) for day in (5, 12, 19, 26)]
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
REFUSED = Failure("TrainingRun", "", 403, "exceeded quota: runs")


def names(sim: Simulation) -> list[str]:
    return [name for _, name, _ in sim.created]


def runs(sim: Simulation, cycle: str = "weekly") -> list[str | None]:
    return [past.run for past in sim.status(cycle).history]


def a_run(name: str, version: str, cycle: str = "weekly", **model: Any) -> dict[str, Any]:
    """A run as a cycle makes it."""
    identity = {"family": "VideoFusion", "type": "videofusion", "version": version, "specialization": "base"} | model
    labels = {LABEL_CYCLE: cycle, MANAGED_BY[0]: MANAGED_BY[1]}
    head = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": {"name": name, "namespace": "models", "labels": labels}}
    return head | {"spec": TEMPLATE | {"model": identity}}


@pytest.mark.parametrize(
    ("zone", "expression", "day"),
    [
        ("Europe/Berlin", "30 2 * * *", datetime(2026, 10, 25, tzinfo=UTC)),
        ("America/New_York", "30 1 * * *", datetime(2026, 11, 1, 5, tzinfo=UTC)),
        ("Australia/Lord_Howe", "45 1 * * *", datetime(2026, 4, 4, 14, tzinfo=UTC)),
        ("Africa/Cairo", "15,45 23 * * *", datetime(2026, 10, 29, 19, tzinfo=UTC)),
        ("Europe/Berlin", "30 2 * * *", datetime(2026, 3, 29, tzinfo=UTC)),
        ("Europe/Berlin", "*/20 * * * *", datetime(2026, 10, 25, tzinfo=UTC)),
    ],
)
def test_while_clocks_are_put_back_the_next_time_lies_ahead_and_the_last_one_stays(zone: str, expression: str, day: datetime) -> None:
    read, times = schedule(expression, zone), [day - 3 * DAY]
    while times[-1] < day + DAY:
        following = read.next(times[-1])
        assert following is not None
        times.append(following)
    for step in range(0, 6 * 3600, 97):
        for now in (day + timedelta(seconds=step), day + timedelta(seconds=step // 60 * 60)):
            assert read.next(now) == min(one for one in times if one > now), now
            assert read.last(now) == max(one for one in times if one <= now), now


def test_the_operator_does_not_spin_while_clocks_are_put_back() -> None:
    sim = Simulation(a_cycle(schedule="30 2 * * *", timeZone="Europe/Berlin"), now=datetime(2026, 10, 24, 12, tzinfo=UTC))
    sim.until(datetime(2026, 10, 25, 0, 31, tzinfo=UTC))
    sim.now = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # 2:15 for the second time
    assert sim.settle() > 0
    sim.until(datetime(2026, 10, 25, 20, tzinfo=UTC))
    assert names(sim) == ["weekly-20261025-0030"]


def test_a_request_whose_run_is_refused_is_not_tried_again_at_once() -> None:
    sim = Simulation(a_cycle())
    sim.refused["*"] = REFUSED
    sim.request("run-now@1")
    assert sim.settle() >= 30
    assert sim.says()[1] == "RunRefused"
    del sim.refused["*"]
    sim.settle()
    assert len(sim.created) == 1


def test_of_two_requests_in_a_row_both_runs_are_accounted_for() -> None:
    sim = Simulation(a_cycle())
    sim.settle()
    sim.request("run-now@1")
    sim.writes_until_crash = 1  # the run is made; its status meets a conflict, because the annotation has changed
    with pytest.raises(Crashed):
        sim.settle()
    sim.request("run-now@2")
    sim.settle()
    assert len(sim.created) == 1, "the first one is at work"
    sim.end(names(sim)[0])
    sim.settle()
    assert runs(sim) == names(sim)


@pytest.mark.parametrize("policy", ["Forbid", "Replace"])
def test_an_edit_of_the_schedule_loses_no_run_that_the_status_does_not_know_yet(policy: str) -> None:
    sim = Simulation(a_cycle(concurrencyPolicy=policy))
    sim.settle()
    sim.now = MONDAYS[0]
    sim.writes_until_crash = 1  # the run is made, its status is not
    with pytest.raises(Crashed):
        sim.settle()
    sim.edit(schedule="0 4 * * 1")
    sim.now += MINUTE
    sim.settle()
    (run,) = names(sim)
    current = sim.status().current
    assert current is not None
    assert current.run == run
    assert runs(sim) == [], "it is no missed time"
    followed = sim.status().followed
    assert followed is not None
    assert followed.schedule == "0 4 * * 1"


def test_an_old_request_that_is_written_again_makes_nothing() -> None:
    sim = Simulation(a_cycle())
    for text in ("a", "b", "a"):
        sim.request(f"run-now@{text}")
        sim.settle()
        if sim.status().current is not None:
            sim.end(names(sim)[-1])
        sim.settle()
    assert len(names(sim)) == 2
    assert runs(sim) == names(sim), "a run has one line"
    assert "RequestRefused" in sim.notes[-1]


def test_a_failed_run_that_is_retried_is_the_run_at_work_again() -> None:
    sim = Simulation(a_cycle())
    sim.until(MONDAYS[0] + MINUTE, end="keep")
    run = names(sim)[0]
    sim.end(run, succeeded=False, reason="TrainerFailed")
    sim.settle()
    sim.objects["TrainingRun", run]["status"] = {"conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Training"}]}
    sim.until(MONDAYS[1] + MINUTE, end="keep")
    assert names(sim) == [run], "Forbid: it is at work"
    sim.end(run)
    sim.settle()
    assert [(past.run, past.outcome) for past in sim.status().history if past.run] == [(run, Outcome.SUCCEEDED)]
    assert sim.says("LastRunSucceeded")[0] == "True"


@pytest.mark.parametrize("writes", range(7))
def test_a_run_beyond_the_limits_is_accounted_for_before_it_is_deleted(writes: int) -> None:
    sim = Simulation(a_cycle(successfulRunsHistoryLimit=0))
    sim.until(MONDAYS[0] + MINUTE, end="keep")
    sim.end(names(sim)[0])
    sim.writes_until_crash = writes
    try:
        sim.settle()
    except Crashed:
        sim.settle()
    assert sim.outcomes() == [Outcome.SUCCEEDED]
    assert sim.list("TrainingRun") == ()


def test_a_cycle_that_is_made_again_takes_over_the_account_of_its_runs() -> None:
    sim = Simulation(a_cycle(successfulRunsHistoryLimit=0))
    sim.put(a_run("weekly-20251215-0300", "1.0.1"))
    sim.put(a_run("weekly-20251222-0300", "1.0.2"))
    for run in sim.list("TrainingRun"):
        sim.end(run["metadata"]["name"])
    sim.settle()
    assert runs(sim) == ["weekly-20251215-0300", "weekly-20251222-0300"]
    assert sim.status().last_version == "1.0.2"


def test_runs_of_a_namesake_for_another_model_are_none_of_the_cycles() -> None:
    sim = Simulation(a_cycle(successfulRunsHistoryLimit=0))
    sim.put(a_run("weekly-20251222-0300", "7.0.0", specialization="hindi"))
    sim.end("weekly-20251222-0300")
    sim.until(MONDAYS[0] + MINUTE, end="keep")
    assert sim.versions() == ["0.0.1"]
    assert ("TrainingRun", "weekly-20251222-0300") in sim.objects


def test_a_version_that_another_cycle_of_the_model_has_used_is_not_used_again() -> None:
    hotfix = a_cycle("hotfix", suspend=True, successfulRunsHistoryLimit=0)
    sim = Simulation(hotfix, a_cycle(precedence=10), a_release("1.0.0"))
    sim.request("run-now@1", "hotfix")
    sim.settle()
    sim.end(names(sim)[0])
    sim.until(MONDAYS[0] + MINUTE, end="keep")
    assert sim.versions() == ["1.0.1", "1.0.2"]


def test_the_highest_version_that_was_used_never_falls() -> None:
    sim = Simulation(a_cycle(), a_release("1.0.4"))
    sim.until(MONDAYS[0] + MINUTE, end="succeed")
    sim.end(names(sim)[0])
    sim.put(a_run("weekly-20260112-0300", "0.1.0"))
    sim.until(MONDAYS[1] + HOUR)
    assert sim.status().last_version == "1.0.5"


def test_a_patch_that_only_the_history_knows_is_not_used_again() -> None:
    """Below the highest version: the service went back to what it had before the monthly release."""
    sim = Simulation(a_cycle(startFrom={"service": "standard"}, failedRunsHistoryLimit=0), a_release("1.0.2"))
    sim.until(MONDAYS[0] + DAY, end="fail")
    sim.put(a_release("1.0.2", state="Superseded"))
    sim.put(a_release("1.1.0"))
    sim.until(MONDAYS[1] + DAY, end="fail")
    sim.put(a_release("1.1.0", state="RolledBack"))
    sim.put(a_release("1.0.2"))
    sim.until(MONDAYS[2] + DAY, end="fail")
    assert (sim.versions(), sim.list("TrainingRun")) == (["1.0.3", "1.1.1", "1.0.4"], ())


@pytest.mark.parametrize("writes", range(8))
def test_precedence_holds_for_different_times_of_one_outage_whenever_the_operator_dies(writes: int) -> None:
    weekly, monthly = a_cycle(precedence=10), a_cycle("monthly", cadence="Monthly", precedence=20)
    sim = Simulation(weekly, monthly, now=START + 20 * DAY)
    sim.settle()
    sim.now, sim.writes_until_crash = datetime(2026, 2, 4, tzinfo=UTC), writes  # both were due: on the 1st and on the 2nd
    try:
        sim.settle()
    except Crashed:
        sim.settle()
    assert names(sim) == ["monthly-20260201-0300"]
    assert sim.outcomes() == [Outcome.MISSED, Outcome.SKIPPED], "of the 26th of January, and of the 2nd"


def test_a_cycle_that_waits_for_a_release_does_not_keep_others_from_making_it() -> None:
    monthly = a_cycle("monthly", cadence="Monthly", precedence=20, startFrom={"service": "standard"})
    sim = Simulation(a_cycle(precedence=10), monthly, now=START + 20 * DAY)
    sim.settle()
    for month, day in ((1, 26), (2, 1), (2, 2), (2, 9)):
        sim.now = datetime(2026, month, day, 3, tzinfo=UTC)
        sim.settle()
        sim.end(names(sim)[-1])
    assert names(sim) == ["weekly-20260126-0300", "weekly-20260202-0300", "weekly-20260209-0300"]
    sim.put(a_release("0.0.3"))
    sim.settle()
    assert names(sim)[-1] == "monthly-20260201-0300"


def test_a_cycle_whose_run_waits_for_the_last_one_does_not_take_later_times_of_others() -> None:
    monthly = a_cycle("monthly", cadence="Monthly", precedence=20, concurrencyPolicy="Queue")
    sim = Simulation(a_cycle(precedence=10), monthly, now=START + 20 * DAY)
    sim.request("run-now@1", "monthly")
    sim.settle()
    for month, day in ((1, 26), (2, 1), (2, 2), (2, 9)):
        sim.now = datetime(2026, month, day, 3, tzinfo=UTC)
        sim.settle()
    assert sim.says(cycle="monthly")[1] == "Queued"
    assert "weekly-20260126-0300" in names(sim)
    assert all("precedence" not in past.message for past in sim.status().history)


class Undeletable(Simulation):
    """An API server that refuses to delete."""

    deny = True

    def _write(self, plan: Any) -> tuple[bool, tuple[Failure, ...]]:
        changed, failures = super()._write(plan if not self.deny else type(plan)(create=plan.create))
        if plan.delete and self.deny and not failures:
            return changed, tuple(Failure("TrainingRun", ref.name, 403, "denied by policy") for ref in plan.delete)
        return changed, failures


def test_a_run_that_cannot_be_deleted_is_not_replaced_before_it_is() -> None:
    sim = Undeletable(a_cycle(concurrencyPolicy="Replace"), now=MONDAYS[0] - MINUTE)
    sim.settle()
    for sim.now in (MONDAYS[0], MONDAYS[1]):
        sim.settle()
    sim.until(MONDAYS[1] + 3 * MINUTE, end="keep")
    assert sim.says()[:2] == ("False", "RunRefused")
    assert "weekly-20260105-0300, which cannot be deleted: denied by policy" in sim.says()[2]
    sim.deny = False
    sim.until(MONDAYS[1] + HOUR, end="keep")
    assert [run["metadata"]["name"] for run in sim.list("TrainingRun")] == ["weekly-20260112-0300"]
    assert sim.outcomes() == [Outcome.REPLACED]


def test_an_old_run_that_cannot_be_deleted_holds_up_no_cycle() -> None:
    sim = Undeletable(
        a_cycle(successfulRunsHistoryLimit=0), a_cycle("other", cadence="Monthly", schedule="0 4 5 * *"), now=MONDAYS[0] - MINUTE
    )
    sim.until(MONDAYS[0], end="keep")
    sim.end(names(sim)[0])
    sim.until(MONDAYS[0] + HOUR, end="keep")
    assert len(sim.created) == 2
    assert not [note for note in sim.notes if "refused" in note]
    assert sim.says(cycle="other")[1] == "Running"


def test_what_a_stage_is_late_with_is_said_in_time_also_while_the_next_run_waits() -> None:
    stages = [{"name": "training", "owner": "ml", "startDay": 0, "days": 8, "phases": ["train"]}]
    sim = Simulation(a_cycle(concurrencyPolicy="Queue", stages=stages))
    sim.settle()
    for sim.now in (MONDAYS[0], MONDAYS[1], MONDAYS[1] + DAY - MINUTE):
        wake = sim.settle()
    assert wake <= 60
    sim.until(MONDAYS[1] + DAY, end="keep")
    assert sim.says("Overdue")[0] == "True"
    sim.until(MONDAYS[2], end="keep")
    assert sim.status().next_schedule_time == "2026-01-26T03:00:00Z"


def test_a_template_that_became_wrong_does_not_hide_that_a_stage_is_late() -> None:
    stages = [{"name": "training", "owner": "ml", "startDay": 0, "days": 1, "phases": ["train"]}]
    sim = Simulation(a_cycle(stages=stages))
    sim.until(MONDAYS[0] + MINUTE, end="keep")
    sim.edit(runTemplate={"spec": {}})
    sim.now = MONDAYS[0] + DAY - MINUTE
    assert sim.settle() <= 60


def test_stages_that_are_edited_say_nothing_about_phases_that_the_run_has_not() -> None:
    stages = [{"name": "training", "owner": "ml", "startDay": 0, "days": 1, "phases": ["train"]}]
    sim = Simulation(a_cycle(stages=stages))
    sim.until(MONDAYS[0] + MINUTE, end="keep")
    phase = TEMPLATE["phases"][0] | {"name": "learn"}
    sim.edit(stages=[stages[0] | {"phases": ["learn"]}], runTemplate={"spec": TEMPLATE | {"phases": [phase]}})
    sim.now += 2 * DAY
    sim.settle()
    assert sim.says("Overdue") == ("", "", "")


def test_a_failure_is_not_forgotten_when_many_times_are_skipped_after_it() -> None:
    sim = Simulation(a_cycle(schedule="0 3 * * *", startingDeadlineSeconds=60))
    sim.until(START + DAY)
    assert sim.says("LastRunSucceeded")[0] == "True"
    sim.until(START + 2 * DAY, end="fail")
    told = sim.says("LastRunSucceeded")
    assert told[0] == "False"
    for day in range(2, 30):
        sim.now = START + day * DAY + 5 * HOUR
        sim.settle()
    assert set(sim.outcomes()) == {Outcome.MISSED}
    assert sim.says("LastRunSucceeded") == told


def test_what_waited_too_long_does_not_blame_the_operator() -> None:
    sim = Simulation(a_cycle(startFrom={"service": "standard"}, startingDeadlineSeconds=600))
    sim.until(MONDAYS[0] + HOUR + HOUR)
    assert sim.outcomes() == [Outcome.MISSED]
    assert "spec.startFrom names service standard, which has no stable release" in sim.status().history[0].message


def test_a_time_zone_that_does_not_exist_has_no_next_time() -> None:
    sim = Simulation(a_cycle())
    sim.settle()
    sim.edit(timeZone="Asia/Delhi")
    sim.settle()
    assert sim.status().next_schedule_time is None


@pytest.mark.parametrize("text", ["$(previous-version)", "$( version )", "$(Version)", "$()"])
def test_what_looks_like_a_placeholder_and_is_none_is_refused(text: str) -> None:
    sim = Simulation(a_cycle(runTemplate={"spec": TEMPLATE | {"storage": {"claimName": "models", "path": text}}}))
    sim.settle()
    assert f"there is no {text}; there are $(version), " in sim.says()[2]


def test_a_model_with_names_too_long_for_the_next_version_says_so_in_one_line() -> None:
    model = {"family": "VideoFusion", "type": "a" * 20, "specialization": "b" * 20}
    sim = Simulation(a_cycle(model=model), a_release("0.0.9", **model))
    sim.settle()
    assert sim.says()[1] == "VersionExhausted"
    assert "45 characters" in sim.says()[2]
    assert "\n" not in sim.says()[2]
    assert "pydantic" not in sim.says()[2]


@pytest.mark.parametrize("version", [None, "latest"])
def test_a_run_with_the_label_and_a_name_of_the_cycles_that_is_no_run_of_the_model_stops_nobody(version: str | None) -> None:
    stranger = a_run("weekly-20260105-0300", "1.0.0")
    stranger["spec"]["model"] = {"version": version} if version else {}
    sim = Simulation(a_cycle(), a_cycle("other", schedule="0 4 * * 1"), now=MONDAYS[0] - MINUTE)
    sim.settle()
    sim.put(stranger)
    sim.until(MONDAYS[0] + 2 * HOUR)
    assert "other-20260105-0400" in names(sim)


def test_a_request_takes_no_scheduled_time_away() -> None:
    sim = Simulation(a_cycle(concurrencyPolicy="Queue"))
    sim.settle()
    sim.now = MONDAYS[0] + MINUTE
    sim.request("run-now@1")
    sim.settle()
    assert sim.says()[1] == "Queued"
    sim.end(names(sim)[0])
    sim.settle()
    assert names(sim)[1:] == ["weekly-20260105-0300"]


@pytest.mark.parametrize("key", ["", ".", "a.b.c.d.e"])
def test_a_template_of_any_depth_is_read_or_refused(key: str) -> None:
    deep: Any = "end"
    for _ in range(60):
        deep = {key: [deep]}
    sim = Simulation(a_cycle(runTemplate={"spec": TEMPLATE | {"extra": deep}}), a_cycle("other"))
    sim.until(MONDAYS[0])
    assert "nested deeper than 32 levels" in sim.says()[2]
    assert names(sim) == ["other-20260105-0300"]


def test_dots_in_names_are_no_levels() -> None:
    labels = {"videogen.pib.gov.in/a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z.a.b.c.d.e.f": "$(cycle)"}
    sim = Simulation(a_cycle(runTemplate={"spec": TEMPLATE | {"labels": labels}}))
    sim.settle()
    assert "nested deeper" not in sim.says()[2]
