"""FineTuneCycles in virtual time: one run for each scheduled time, whatever happens in between."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from videogen_api.fine_tune_cycle import LABEL_CYCLE, Cadence, Outcome
from videogen_api.training_run import TrainingRunSpec
from videogen_operator.kinds.fine_tune_cycle import FINE_TUNE_CYCLE
from videogen_operator.plan import Failure
from videogen_testing.cycle_simulation import START, TEMPLATE, Crashed, Simulation, a_cycle, a_release
from videogen_testing.runs import DIGEST, EVALUATE, RELEASE

MONDAYS = [datetime(2026, 1, day, 3, tzinfo=UTC) for day in (5, 12, 19, 26)]
DAY = timedelta(days=1)


def names(sim: Simulation) -> list[str]:
    return [name for _, name, _ in sim.created]


def test_each_scheduled_time_makes_one_run_under_the_next_version() -> None:
    sim = Simulation(a_cycle(), a_release("1.4.2"))
    sim.until(MONDAYS[2] + DAY)
    assert [(when, version) for when, _, version in sim.created] == list(zip(MONDAYS[:3], ["1.4.3", "1.4.4", "1.4.5"], strict=True))
    assert names(sim) == ["weekly-20260105-0300", "weekly-20260112-0300", "weekly-20260119-0300"]
    assert sim.outcomes() == [Outcome.SUCCEEDED] * 3
    assert sim.says() == ("True", "Scheduled", "the next run is created at 2026-01-26T03:00:00Z")
    assert sim.says("LastRunSucceeded")[:2] == ("True", "Succeeded")
    run = sim.objects["TrainingRun", "weekly-20260105-0300"]
    assert run["metadata"]["labels"][LABEL_CYCLE] == "weekly"
    assert "ownerReferences" not in run["metadata"], "deleting a cycle keeps its runs"
    TrainingRunSpec.model_validate(run["spec"])


def test_a_cycle_makes_nothing_for_times_before_it_was_created() -> None:
    sim = Simulation(a_cycle(schedule="0 3 * * *"), now=START + timedelta(hours=5))
    sim.until(START + timedelta(hours=20))
    assert sim.created == []


@pytest.mark.parametrize("days", [3, 40, 400, 4000])
def test_after_an_outage_one_run_catches_up_however_long_it_was(days: int) -> None:
    sim = Simulation(a_cycle())
    sim.settle()
    sim.now = MONDAYS[0] + days * DAY
    sim.settle()
    assert len(sim.created) == 1
    last = sim.status().last_schedule_time
    assert last is not None
    assert sim.now - datetime.fromisoformat(last) < 7 * DAY


def test_beyond_its_deadline_a_time_is_missed_and_says_so() -> None:
    sim = Simulation(a_cycle(startingDeadlineSeconds=3600))
    sim.settle()
    sim.now = MONDAYS[0] + timedelta(hours=2)
    sim.settle()
    assert (sim.created, sim.outcomes()) == ([], [Outcome.MISSED])
    assert "7200 s late, and startingDeadlineSeconds is 3600" in sim.status().history[-1].message
    sim.until(MONDAYS[1])
    assert names(sim) == ["weekly-20260112-0300"]


@pytest.mark.parametrize(
    ("policy", "runs", "outcomes"),
    [
        ("Forbid", ["weekly-20260105-0300"], [Outcome.SKIPPED]),
        ("Replace", ["weekly-20260105-0300", "weekly-20260112-0300"], [Outcome.REPLACED]),
        ("Queue", ["weekly-20260105-0300"], []),
    ],
)
def test_a_run_that_is_still_at_work(policy: str, runs: list[str], outcomes: list[Outcome]) -> None:
    sim = Simulation(a_cycle(concurrencyPolicy=policy))
    sim.until(MONDAYS[1] + timedelta(minutes=5), end="keep")
    assert (names(sim), sim.outcomes()) == (runs, outcomes)
    present = {name for kind, name in sim.objects if kind == "TrainingRun"}
    assert present == {runs[-1]}, "Replace deletes the run that was at work"
    if policy == "Queue":
        assert sim.says()[1] == "Queued"
        sim.end("weekly-20260105-0300")
        sim.settle()
        assert names(sim) == ["weekly-20260105-0300", "weekly-20260112-0300"]


def test_a_suspended_cycle_makes_nothing_and_catches_up_with_the_last_time_only() -> None:
    sim = Simulation(a_cycle(suspend=True))
    sim.until(MONDAYS[2] + DAY)
    assert (sim.created, sim.says()[1]) == ([], "Suspended")
    sim.edit(suspend=False)
    sim.settle()
    assert names(sim) == ["weekly-20260119-0300"]
    (past,) = sim.status().history
    assert (past.first_time, past.scheduled_time) == ("2026-01-05T03:00:00Z", "2026-01-12T03:00:00Z"), "one line, however many"
    said = "a later time, 2026-01-19T03:00:00Z, came before a run could begin; before that: spec.suspend is true; no run is created"
    assert (past.outcome, past.message) == (Outcome.MISSED, said)


def test_a_time_that_is_queued_and_overtaken_by_the_next_one_is_missed() -> None:
    sim = Simulation(a_cycle(concurrencyPolicy="Queue"))
    sim.until(MONDAYS[2] + DAY, end="keep")
    (past,) = sim.status().history
    assert (past.outcome, past.first_time, past.scheduled_time) == (Outcome.MISSED, None, "2026-01-12T03:00:00Z")
    assert past.message.endswith("before that: the run for 2026-01-12T03:00:00Z waits for the end of weekly-20260105-0300")
    assert "weekly: Missed: no run for 2026-01-12T03:00:00Z: a later time, " in "\n".join(sim.notes)
    sim.end("weekly-20260105-0300")
    sim.settle()
    assert names(sim) == ["weekly-20260105-0300", "weekly-20260119-0300"]


def test_a_time_that_is_queued_when_the_schedule_is_changed_is_missed() -> None:
    sim = Simulation(a_cycle(concurrencyPolicy="Queue"))
    sim.until(MONDAYS[1] + DAY, end="keep")
    sim.edit(schedule="0 2 * * 1")
    sim.settle()
    (past,) = sim.status().history
    assert (past.outcome, past.scheduled_time) == (Outcome.MISSED, "2026-01-12T03:00:00Z")
    assert past.message.startswith("the schedule was changed before a run could begin; before that: the run for 2026-01-12")
    sim.settle()
    assert len(sim.status().history) == 1


@pytest.mark.parametrize("change", [{"schedule": "0 2 * * 1"}, {"timeZone": "Asia/Kolkata"}, {"schedule": "*/5 * * * *"}])
def test_a_schedule_that_is_changed_makes_no_run_by_the_change(change: dict[str, str]) -> None:
    sim = Simulation(a_cycle())
    sim.until(MONDAYS[0] + timedelta(hours=30, seconds=30))
    sim.edit(**change)
    sim.settle()
    assert names(sim) == ["weekly-20260105-0300"]
    following = sim.status().next_schedule_time
    assert following is not None
    sim.until(datetime.fromisoformat(following))
    assert len(sim.created) == 2


def test_of_cycles_that_are_due_together_the_highest_precedence_starts() -> None:
    weekly = a_cycle(precedence=10)
    monthly = a_cycle("monthly", cadence="Monthly", schedule="0 3 * * 1", precedence=20)
    sim = Simulation(weekly, monthly, a_release("1.0.0"))
    sim.until(MONDAYS[0] + DAY)
    assert sim.created == [(MONDAYS[0], "monthly-20260105-0300", "1.1.0")]
    assert sim.outcomes("weekly") == [Outcome.SKIPPED]
    assert "cycle monthly of the same model was due, too, and has precedence" in sim.status("weekly").history[0].message


def test_cycles_of_other_models_do_not_hold_each_other_up() -> None:
    other = a_cycle("other", model={"family": "VideoFusion", "specialization": "hindi"})
    sim = Simulation(a_cycle(), other)
    sim.until(MONDAYS[0])
    made = sorted((run["spec"]["model"]["specialization"], run["spec"]["model"]["version"]) for run in sim.list("TrainingRun"))
    assert made == [("base", "0.0.1"), ("hindi", "0.0.1")]


@pytest.mark.parametrize("writes", range(8))
def test_an_operator_that_dies_after_any_write_makes_nothing_twice_and_forgets_nothing(writes: int) -> None:
    monthly = a_cycle("monthly", cadence="Monthly", schedule="0 3 * * 1", precedence=20, concurrencyPolicy="Replace")
    sim = Simulation(a_cycle(), monthly, a_release("1.0.0"))
    sim.until(MONDAYS[0] + timedelta(minutes=1), end="keep")
    sim.now, sim.writes_until_crash = MONDAYS[1], writes
    try:
        sim.settle()
    except Crashed:
        sim.settle()
    sim.writes_until_crash = None
    sim.until(MONDAYS[2] + timedelta(hours=4))
    assert names(sim) == [f"monthly-202601{day}-0300" for day in ("05", "12", "19")]
    assert sim.outcomes("monthly") == [Outcome.REPLACED, Outcome.SUCCEEDED, Outcome.SUCCEEDED]
    assert sim.outcomes("weekly") == [Outcome.SKIPPED] * 3


def test_a_run_that_was_made_before_a_long_outage_is_followed_to_its_end() -> None:
    sim = Simulation(a_cycle())
    sim.settle()
    sim.now, sim.writes_until_crash = MONDAYS[0], 1  # the run is made, its status is not
    with pytest.raises(Crashed):
        sim.settle()
    sim.now = MONDAYS[2] + DAY
    sim.settle()
    current = sim.status().current
    assert current is not None
    assert (current.run, sim.outcomes()) == ("weekly-20260105-0300", [Outcome.MISSED, Outcome.SKIPPED])
    sim.end("weekly-20260105-0300")
    sim.settle()
    assert sim.outcomes() == [Outcome.MISSED, Outcome.SKIPPED, Outcome.SUCCEEDED]


@pytest.mark.parametrize("leap", [DAY, -DAY])
def test_a_clock_that_jumps_starts_nothing_twice(leap: timedelta) -> None:
    sim = Simulation(a_cycle(schedule="0 3 * * *"))
    sim.until(START + timedelta(days=3, hours=3, minutes=1))
    sim.now += leap
    sim.settle()
    sim.now -= leap
    sim.until(START + timedelta(days=8))
    days = [name.split("-")[1] for name in names(sim)]
    assert days == sorted(set(days))
    assert len(days) + sim.outcomes().count(Outcome.SKIPPED) == 8, "of each day it is known what became of it"


def test_a_run_that_is_deleted_and_one_that_fails_leave_production_and_say_why() -> None:
    sim = Simulation(a_cycle(), a_release("1.0.0"))
    before = sim.objects["ModelRelease", "pib-videogen-videofusion-v1.0.0-base"].copy()
    sim.until(MONDAYS[0] + timedelta(minutes=1), end="keep")
    del sim.objects["TrainingRun", "weekly-20260105-0300"]
    sim.until(MONDAYS[1] + timedelta(minutes=1), end="keep")
    sim.end("weekly-20260112-0300", succeeded=False, reason="GateFailed", message="FVD is 300, over 200")
    sim.settle()
    assert sim.outcomes() == [Outcome.DELETED, Outcome.FAILED]
    assert sim.says("LastRunSucceeded") == ("False", "Failed", "run weekly-20260112-0300: GateFailed: FVD is 300, over 200")
    assert sim.versions() == ["1.0.1", "1.0.2"], "a version is never used again"
    assert sim.objects["ModelRelease", "pib-videogen-videofusion-v1.0.0-base"] == before


def test_history_limits_delete_old_runs_of_the_cycle_and_nothing_else() -> None:
    sim = Simulation(a_cycle(schedule="0 3 * * *", successfulRunsHistoryLimit=2, failedRunsHistoryLimit=1))
    mine = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "TrainingRun", "spec": {}}
    mine |= {"metadata": {"name": "weekly-mine", "namespace": "models", "labels": {LABEL_CYCLE: "weekly"}}}
    sim.put(mine)
    sim.end("weekly-mine")
    sim.until(START + timedelta(days=5, hours=8))
    sim.until(START + timedelta(days=9, hours=8), end="fail")
    present = sorted(name for kind, name in sim.objects if kind == "TrainingRun")
    assert present == ["weekly-20260105-0300", "weekly-20260106-0300", "weekly-20260110-0300", "weekly-mine"]
    assert len(sim.created) == 10


def test_a_run_beyond_the_limits_goes_as_soon_as_its_end_is_written() -> None:
    sim = Simulation(a_cycle(suspend=True, successfulRunsHistoryLimit=0))
    sim.request("run-now@1")
    sim.settle()
    sim.end(names(sim)[0])
    sim.settle()
    assert (sim.list("TrainingRun"), sim.outcomes()) == ((), [Outcome.SUCCEEDED])


def test_run_now_makes_one_run_for_one_id() -> None:
    sim = Simulation(a_cycle(suspend=True), a_release("1.0.0"))
    for _ in range(2):
        sim.request("run-now@hotfix")
        sim.settle()
    assert len(sim.created) == 1
    name = names(sim)[0]
    assert name.startswith("weekly-now-")
    sim.request("run-now@again")
    sim.settle()
    assert f"while run {name} is at work" in sim.notes[-1]
    sim.end(name)
    sim.settle()
    sim.request("run-now@once-more")
    sim.settle()
    assert sim.versions() == ["1.0.1", "1.0.2"]
    assert sim.status().last_handled_request == "run-now@once-more"


@pytest.mark.parametrize("text", ["run-now", "run-now@", "promote@1", "x"])
def test_a_request_that_is_none_is_refused_with_what_is_accepted(text: str) -> None:
    sim = Simulation(a_cycle())
    sim.request(text)
    sim.settle()
    assert sim.notes == [f"weekly: RequestRefused: request {text!r} is none; accepted is run-now@<id>"]


def test_each_run_starts_from_the_stable_release_of_that_time() -> None:
    sim = Simulation(a_cycle(startFrom={"service": "standard"}))
    sim.settle()
    sim.now = MONDAYS[0]
    sim.settle()
    assert sim.says() == ("False", "NoStableRelease", "spec.startFrom names service standard, which has no stable release; waits for one")
    sim.put(a_release("1.0.0"))
    sim.until(MONDAYS[0] + timedelta(hours=4))
    sim.put(a_release("1.0.0", state="Standby"))
    sim.put(a_release("1.0.1"))
    sim.until(MONDAYS[1])
    sources = [run["spec"]["initFrom"]["release"] for run in sim.list("TrainingRun")]
    assert sources == [f"pib-videogen-videofusion-v{version}-base" for version in ("1.0.0", "1.0.1")]


def test_a_service_whose_stable_release_is_of_another_family_is_no_start() -> None:
    sim = Simulation(a_cycle(startFrom={"service": "standard"}), a_release("1.0.0", family="Text2VideoZero"))
    sim.settle()
    sim.now = MONDAYS[0]
    sim.settle()
    assert (sim.created, sim.says()[1]) == ([], "NoStableRelease")
    assert "is of family Text2VideoZero, not VideoFusion" in sim.says()[2]


def with_template(**changes: Any) -> dict[str, Any]:
    return a_cycle(runTemplate={"spec": TEMPLATE | changes})


@pytest.mark.parametrize(
    ("cycle", "reason", "words"),
    [
        (a_cycle(schedule="0 3 30 2 *"), "ScheduleInvalid", "spec.schedule: '0 3 30 2 *' is no schedule (Bad day-of-month)"),
        (a_cycle(schedule="0 25 * * *"), "ScheduleInvalid", "spec.schedule: '0 25 * * *' is no schedule"),
        (a_cycle(timeZone="Asia/Delhi"), "TimeZoneUnknown", "spec.timeZone: 'Asia/Delhi' is no time zone"),
        (with_template(model={"family": "VideoFusion"}), "TemplateInvalid", "spec.runTemplate.spec.model is set by the cycle"),
        (with_template(initFrom={"release": "x"}), "TemplateInvalid", "spec.runTemplate.spec.initFrom is set by the cycle"),
        (with_template(phases=[]), "TemplateInvalid", "spec.runTemplate.spec.phases"),
        (with_template(stepz=1), "TemplateInvalid", "spec.runTemplate.spec.stepz"),
        (
            with_template(storage={"claimName": "$(claim)"}),
            "TemplateInvalid",
            "spec.runTemplate.spec.storage.claimName: there is no $(claim)",
        ),
        (
            with_template(storage={"claimName": "c-$(previousDate)"}),
            "TemplateInvalid",
            "$(previousDate) has no value before the first successful run",
        ),
    ],
)
def test_what_cannot_work_is_said_when_it_is_written(cycle: dict[str, Any], reason: str, words: str) -> None:
    sim = Simulation(cycle)
    sim.settle()
    assert sim.says()[:2] == ("False", reason)
    assert words in sim.says()[2]
    assert sim.says("Stalled")[0] == "True"
    sim.until(MONDAYS[0] + DAY)
    assert sim.created == []


def test_placeholders_are_filled_in() -> None:
    phases = [
        {"name": "curate", "task": "Curate", "curate": {"dataset": "pib", "version": "$(date)", "sources": [{"path": "raw/$(cycle)"}]}},
    ]
    template = TEMPLATE | {"phases": [*phases, {"name": "train", "task": "Train", "data": [{"dataset": "pib", "version": "$(date)"}]}]}
    sim = Simulation(a_cycle(runTemplate={"spec": template}, timeZone="Asia/Kolkata", schedule="0 3 * * *"))
    sim.until(START + timedelta(hours=22))
    (run,) = sim.list("TrainingRun")
    assert run["metadata"]["name"] == "weekly-20260101-2130", "names are in UTC"
    assert run["spec"]["phases"][0]["curate"]["version"] == "2026-01-02", "dates are the zone's"
    assert run["spec"]["phases"][0]["curate"]["sources"][0]["path"] == "raw/weekly"


def test_a_run_that_the_api_server_refuses_is_tried_again_under_the_same_name() -> None:
    sim = Simulation(a_cycle())
    sim.settle()
    sim.now = MONDAYS[0]
    sim.refused["*"] = Failure("TrainingRun", "", 403, "exceeded quota: runs")
    sim.settle()
    told = sim.says()
    assert told == ("False", "RunRefused", "TrainingRun weekly-20260105-0300 was refused: exceeded quota: runs")
    del sim.refused["*"]
    sim.until(MONDAYS[0] + timedelta(minutes=2), end="keep")
    assert names(sim) == ["weekly-20260105-0300"]


def test_a_cycle_that_cannot_be_read_says_so_and_holds_up_no_other() -> None:
    broken = a_cycle("broken", precedence="first")
    sim = Simulation(broken, a_cycle())
    sim.until(MONDAYS[0])
    conditions = {one["type"]: one for one in sim.objects["FineTuneCycle", "broken"]["status"]["conditions"]}
    assert (conditions["Ready"]["reason"], conditions["Stalled"]["status"]) == ("Unreadable", "True")
    assert names(sim) == ["weekly-20260105-0300"]


@pytest.mark.parametrize(("cadence", "months"), [(Cadence.MONTHLY, 12), (Cadence.QUARTERLY, 4), (Cadence.ANNUAL, 1)])
def test_each_cadence_has_a_schedule_of_its_own(cadence: Cadence, months: int) -> None:
    sim = Simulation(a_cycle("c", cadence=cadence, concurrencyPolicy="Replace"), now=datetime(2026, 1, 2, tzinfo=UTC))
    for month in range(2, 14):
        sim.settle()
        sim.now = datetime(2026 + month // 13, month % 12 or 12, 1, 3, tzinfo=UTC)
        sim.settle()
    assert len(sim.created) == months


STAGES = [
    {"name": "curation", "owner": "data-science", "startDay": 0, "days": 7, "phases": ["curate"]},
    {"name": "fine-tuning", "owner": "ml-engineering", "startDay": 7, "days": 7, "phases": ["train"]},
    {"name": "evaluation", "owner": "qa", "startDay": 14, "days": 7, "phases": ["validate"]},
    {"name": "deployment", "owner": "devops", "startDay": 21, "days": 7, "phases": ["release"]},
]
PHASES_OF_STAGES = [phase for stage in STAGES for phase in stage["phases"]]  # type: ignore[attr-defined]
STAGED = [
    {"name": "curate", "task": "Curate", "curate": {"dataset": "pib", "version": "$(date)", "sources": [{"path": "raw"}]}},
    {"name": "train", "task": "Train", "data": [{"dataset": "pib", "version": "$(date)"}]},
    EVALUATE | {"data": [{"dataset": "pib", "version": "$(date)", "split": "HeldOut"}]},
    RELEASE,
]


def staged(**changes: Any) -> dict[str, Any]:
    template = TEMPLATE | {"phases": STAGED}
    return a_cycle("monthly", cadence="Monthly", stages=STAGES, runTemplate={"spec": template}) | changes


def done(phase: str, at: datetime, **more: Any) -> dict[str, Any]:
    moment = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"name": phase, "begun": True, "startTime": moment, "completionTime": moment, "outcome": "Completed"} | more


def test_each_stage_says_whose_turn_it_is_and_what_it_has_delivered() -> None:
    start = datetime(2026, 2, 1, 3, tzinfo=UTC)
    sim = Simulation(staged(), now=START + 20 * DAY)
    sim.until(start, end="keep")
    run = sim.objects["TrainingRun", "monthly-20260201-0300"]

    def shows(*phases: dict[str, Any], **more: Any) -> Any:
        condition = {"type": "Succeeded", "status": "Unknown", "reason": "Training", "message": "trains"}
        run["status"] = {"conditions": [condition], "phases": list(phases)} | more
        sim.settle()
        return sim.status("monthly").current

    data = [{"dataset": "pib", "version": "2026-02-01", "digest": DIGEST, "clips": 1200}]
    first = shows({"name": "curate", "begun": True})
    assert (first.stage, first.waiting_for.team, first.waiting_for.due) == ("curation", "data-science", "2026-02-08T03:00:00Z")
    second = shows(done("curate", start + DAY, datasets=data), {"name": "train", "begun": True})
    assert [stage.state for stage in second.stages] == ["Done", "Working", "Waiting", "Waiting"]
    assert (second.waiting_for.team, second.waiting_for.since) == ("ml-engineering", "2026-02-02T03:00:00Z")
    assert [(one.kind, one.name, one.digest) for one in second.stages[0].delivered] == [("Dataset", "pib/2026-02-01", DIGEST)]
    assert "stage fine-tuning is the turn of ml-engineering until 2026-02-15T03:00:00Z" in sim.says(cycle="monthly")[2]
    bundle = {"path": "bundles/x", "digest": DIGEST}
    past = (done("curate", start, datasets=data), done("train", start), done("validate", start, report="reports/1.html"))
    last = shows(*past, done("release", start), artifact=bundle, release="pib-videogen-videofusion-v0.1.0-base")
    assert [[one.kind for one in stage.delivered] for stage in last.stages] == [["Dataset"], ["Bundle"], ["Report"], ["Release"]]
    assert (last.stage, last.waiting_for) == ("", None)


def test_a_stage_beyond_its_window_is_overdue_at_that_moment_and_no_longer_when_it_is_done() -> None:
    start = datetime(2026, 2, 1, 3, tzinfo=UTC)
    sim = Simulation(staged(), now=START + 20 * DAY)
    sim.until(start + timedelta(days=7) - timedelta(seconds=1), end="keep")
    assert sim.says("Overdue", "monthly") == ("", "", "")
    sim.until(start + timedelta(days=7), end="keep")
    words = "stage curation of data-science was due at 2026-02-08T03:00:00Z and is Waiting"
    assert sim.says("Overdue", "monthly") == ("True", "WindowClosed", words)
    sim.objects["TrainingRun", "monthly-20260201-0300"]["status"] = {"phases": [done("curate", sim.now)]}
    sim.settle()
    assert sim.says("Overdue", "monthly") == ("", "", "")


def test_a_stage_that_fails_ends_the_run_and_says_whose_it_is() -> None:
    sim = Simulation(staged(), now=START + 20 * DAY)
    sim.until(datetime(2026, 2, 1, 4, tzinfo=UTC), end="keep")
    failed = {"name": "curate", "begun": True, "outcome": "TooFewClips"}
    sim.end("monthly-20260201-0300", succeeded=False, reason="TooFewClips", message="12 of 1000", phases=[failed])
    sim.settle()
    assert sim.status("monthly").history[-1].message == "stage curation of data-science failed: TooFewClips: 12 of 1000"


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (STAGES[:3], "spec.stages: phase release has no stage; add it to one"),
        ([STAGES[0] | {"phases": ["curate", "draw"]}, *STAGES[1:]], "spec.stages[0].phases: there is no phase draw"),
        ([*STAGES[:3], STAGES[3] | {"phases": ["release", "train"]}], "spec.stages[3].phases: phase train has a stage already"),
        (
            [STAGES[0] | {"phases": ["train"]}, STAGES[1] | {"phases": ["curate"]}, *STAGES[2:]],
            "spec.stages: phase curate comes before train in the run, and its stage after",
        ),
    ],
)
def test_stages_that_do_not_fit_the_template_are_refused(stages: list[dict[str, Any]], words: str) -> None:
    cycle = staged()
    cycle["spec"]["stages"] = stages
    sim = Simulation(cycle)
    sim.settle()
    assert sim.says(cycle="monthly")[:2] == ("False", "StagesInvalid")
    assert words in sim.says(cycle="monthly")[2]


def working(sim: Simulation, run: str, reason: str, message: str, *phases: dict[str, Any]) -> None:
    """The run is at work, with these phases."""
    condition = {"type": "Succeeded", "status": "Unknown", "reason": reason, "message": message}
    sim.objects["TrainingRun", run]["status"] = {"conditions": [condition], "phases": list(phases)}


def test_a_run_that_has_used_up_its_budget_is_told_of_until_it_goes_on() -> None:
    sim = Simulation(a_cycle(budget={"gpuHours": 20}))
    sim.until(MONDAYS[0], end="keep")
    run = names(sim)[0]
    working(sim, run, "Training", "", {"name": "train", "gpuHours": "12.5000"})
    sim.settle()
    current = sim.status().current
    assert current is not None
    assert (current.gpu_hours, sim.says("BudgetExceeded")) == ("12.5000", ("", "", ""))
    working(sim, run, "BudgetExceeded", "train: used 20 of 20", {"name": "train", "gpuHours": "20.0010"})
    sim.settle()
    assert sim.says("BudgetExceeded") == ("True", "BudgetSpent", f"run {run} is stopped: train: used 20 of 20")
    assert sim.says()[:2] == ("True", "Running"), "it is at work: the next scheduled time waits for it"
    assert told(sim, "weekly")["videogen_cycle_budget_exceeded()"] == 1
    assert told(sim, "weekly")["videogen_cycle_gpu_hours()"] == 20.001
    working(sim, run, "Training", "", {"name": "train", "gpuHours": "20.0010"})
    sim.settle()
    assert sim.says("BudgetExceeded")[0] == ""
    sim.end(run, phases=[{"name": "train", "gpuHours": "21.0000"}, {"name": "evaluate", "gpuHours": "0.2500"}])
    sim.settle()
    assert sim.status().history[-1].gpu_hours == "21.2500"


def test_pods_that_end_after_their_run_are_in_the_history_in_the_end() -> None:
    sim = Simulation(a_cycle())
    sim.until(MONDAYS[0], end="keep")
    run = names(sim)[0]
    sim.end(run, phases=[{"name": "train", "gpuHours": "21.0000"}])
    sim.settle()
    sim.end(run, phases=[{"name": "train", "gpuHours": "21.0300"}])
    sim.settle()
    del sim.objects["TrainingRun", run]
    sim.settle()
    assert sim.status().history[-1].gpu_hours == "21.0300"


def test_the_history_tells_what_each_stage_took_beside_its_plan() -> None:
    sim = Simulation(staged(), now=START + 20 * DAY)
    sim.until(datetime(2026, 2, 1, 3, tzinfo=UTC), end="keep")
    run, at = names(sim)[0], datetime(2026, 2, 1, 3, tzinfo=UTC)
    phases = [done(phase, at + place * DAY, gpuHours="2.5000", bytesWritten=1000) for place, phase in enumerate(PHASES_OF_STAGES)]
    sim.end(run, phases=phases)
    sim.settle()
    took = sim.status("monthly").history[-1].stages
    assert [one.name for one in took] == [stage["name"] for stage in staged()["spec"]["stages"]]
    assert all(one.planned_seconds == 7 * 86400 for one in took)
    assert sum(one.bytes_written or 0 for one in took) == 1000 * len(PHASES_OF_STAGES)
    assert sum(float(one.gpu_hours or 0) for one in took) == 2.5 * len(PHASES_OF_STAGES)
    assert [one.wall_seconds is not None for one in took] == [True] * len(took)


def told(sim: Simulation, cycle: str) -> dict[str, float]:
    return {f"{gauge.name}{labels[2:]}": value for gauge, labels, value in FINE_TUNE_CYCLE.samples(sim.objects["FineTuneCycle", cycle])}


def test_prometheus_is_told_of_state_outcome_times_and_what_is_late() -> None:
    sim = Simulation(staged(), now=START + 20 * DAY)
    sim.settle()
    assert told(sim, "monthly") == {
        "videogen_cycle('Scheduled',)": 1,
        "videogen_cycle_overdue()": 0,
        "videogen_cycle_budget_exceeded()": 0,
        "videogen_cycle_collection_below_target()": 0,
        "videogen_cycle_next_schedule_time_seconds()": datetime(2026, 2, 1, 3, tzinfo=UTC).timestamp(),
    }
    sim.until(datetime(2026, 2, 8, 3, tzinfo=UTC), end="keep")
    late = told(sim, "monthly")
    assert (late["videogen_cycle('Running',)"], late["videogen_cycle_overdue()"]) == (1, 1)
    sim.end("monthly-20260201-0300", succeeded=False, reason="GateFailed")
    sim.settle()
    assert told(sim, "monthly")["videogen_cycle_last_run_succeeded()"] == 0
