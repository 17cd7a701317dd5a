"""A year of all cycles of two models, with failures, outages, crashes and people; what must hold is looked at after every step."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

from videogen_api.fine_tune_cycle import FineTuneCycleStatus, Followed, Outcome, PastRun
from videogen_operator.kinds.fine_tune_cycle.schedule import schedule
from videogen_operator.plan import Failure
from videogen_testing.cycle_simulation import START, Crashed, Simulation, a_cycle, a_release

MODELS = ({"family": "VideoFusion"}, {"family": "AlignYourLatents", "specialization": "english"})
CYCLES = {  # cadence: precedence, policy, longest run in days
    "Weekly": (10, "Forbid", 9),
    "Monthly": (20, "Queue", 40),
    "Quarterly": (30, "Forbid", 80),
    "Annual": (40, "Replace", 100),
}
END = START + timedelta(days=366)
STABLE = ("ModelRelease", "pib-videogen-videofusion-v1.0.0-base")


class Year(Simulation):
    """Everything that can happen, by chance."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        cycles = [
            a_cycle(
                f"{cadence.lower()}-{number}",
                cadence=cadence,
                precedence=precedence,
                concurrencyPolicy=policy,
                model=model,
                startFrom={"service": "standard"} if number == 0 else None,
            )
            for number, model in enumerate(MODELS)
            for cadence, (precedence, policy, _) in CYCLES.items()
        ]
        for cycle in cycles:
            cycle["spec"] = {name: value for name, value in cycle["spec"].items() if value is not None}
        super().__init__(*cycles, a_release("1.0.0"))
        self._production = self.objects[STABLE].copy()
        self._ends: dict[str, datetime] = {}
        self.ends = 0  # scheduled times that were looked for and found in the account
        self._on_time: set[tuple[str, str]] = set()  # cycle and scheduled time of lines that have been looked at
        self._lines: dict[str, dict[tuple[str, str | None], PastRun]] = defaultdict(dict)  # that a cycle has had, by time and run
        self._schedules: dict[str, set[tuple[str, str]]] = defaultdict(set)  # that it has followed, with their time zones
        self._accounted: dict[str, tuple[Followed, datetime]] = {}  # what each followed when it was last looked at, and up to when

    def live(self) -> None:
        """The year."""
        while self.now < END:
            self._happen()
            try:
                self.settle()
            except Crashed:
                self.settle()
            self.writes_until_crash = None
            self.check()
            self.now = max(self.now + timedelta(minutes=1), min(self._next(), END))

    def check(self) -> None:
        """Each time has one run or one reason, no run is lost, and production is untouched. No version comes twice: see Simulation."""
        assert self.objects[STABLE] == self._production, "production is untouched"
        for cycle in self.list("FineTuneCycle"):
            name = str(cycle["metadata"]["name"])
            self._check_history(name, self.status(name))
            self._check_that_no_time_is_missing(name, self.status(name))

    def _check_that_no_time_is_missing(self, name: str, status: FineTuneCycleStatus) -> None:
        """Each one up to the last that was decided about is in one line, or has the run at work; those of a former schedule, too."""
        followed, current, lines = status.followed, status.current, self._lines[name]
        assert followed is not None
        lines |= {(past.scheduled_time, past.run): past for past in status.history if not (past.run and "-now-" in past.run)}
        ended = [past for past in lines.values() if not (current and past.run == current.run)]
        spans = [(_read(past.first_time or past.scheduled_time), _read(past.scheduled_time)) for past in ended]
        if current and "-now-" not in current.run:
            spans.append((_read(current.scheduled_time), _read(current.scheduled_time)))
        since = _read(followed.since)
        before, done = self._accounted.get(name, (followed, since))
        todo = [(before, done, since)] if before != followed else []
        done = max(done, since) if before != followed else done
        decided = max(done, _read(status.last_schedule_time) if status.last_schedule_time else done)
        for one, begin, end in (*todo, (followed, done, decided)):
            times = schedule(one.schedule, one.time_zone)
            moment = times.next(begin)
            while moment is not None and moment <= end:
                found = [span for span in spans if span[0] <= moment <= span[1]]
                assert len(found) == 1, f"{name}: {moment} is in {len(found)} lines"
                self.ends += 1
                moment = times.next(moment)
        self._accounted[name] = followed, decided

    def _check_history(self, name: str, status: FineTuneCycleStatus) -> None:
        assert status.followed is not None
        runs = Counter(past.run for past in status.history if past.run)
        assert max(runs.values(), default=1) == 1, "a run has one line"
        scheduled = [past for past in status.history if not (past.run and "-now-" in past.run)]
        assert max(Counter(past.scheduled_time for past in scheduled).values(), default=1) == 1, "a time has one line"
        assert all(past.message for past in status.history if past.outcome != Outcome.SUCCEEDED), "each says why"
        self._schedules[name].add((status.followed.schedule, status.followed.time_zone))
        for text in (text for past in scheduled for text in (past.first_time, past.scheduled_time) if text):
            if (name, text) not in self._on_time:
                moment = _read(text)
                assert moment in [schedule(*one).last(moment) for one in self._schedules[name]], f"{name} has no time at {moment}"
                self._on_time.add((name, text))
        made = {run for _, run, _ in self.created if run.startswith(f"{name}-")}
        if len(status.history) < 20:
            assert made == set(runs) | ({status.current.run} if status.current else set()), "each run is accounted for"

    def _next(self) -> datetime:
        """The next scheduled time or end of a run; now and then long after it, because the operator was away."""
        times = [self.status(cycle["metadata"]["name"]).next_schedule_time for cycle in self.list("FineTuneCycle")]
        known = [datetime.fromisoformat(one) for one in times if one] + list(self._ends.values())
        later = [one for one in known if one > self.now]
        return min(later, default=END) + timedelta(days=self._random.choice([0] * 9 + [1, 20]))

    def _happen(self) -> None:
        for run in self.list("TrainingRun"):
            name = run["metadata"]["name"]
            longest = CYCLES[name.partition("-")[0].capitalize()][2]
            end = self._ends.setdefault(name, self.now + timedelta(hours=self._random.uniform(1, longest * 24)))
            if "status" not in run and end <= self.now:
                fails = self._random.random() < 0.2
                self.end(name, succeeded=not fails, reason="GateFailed" if fails else "Completed")
                del self._ends[name]
        self._ends = {name: end for name, end in self._ends.items() if ("TrainingRun", name) in self.objects}
        self.refused.clear()
        match self._random.randrange(12):
            case 0:
                self.writes_until_crash = self._random.randrange(6)
            case 1:
                self.refused["*"] = Failure("TrainingRun", "", 403, "exceeded quota")
            case 2:
                self.edit(self._some("FineTuneCycle"), suspend=self._random.random() < 0.3)
            case 3:
                self.request(f"run-now@{self._random.randrange(10**6)}", self._some("FineTuneCycle"))
            case 4 if self.list("TrainingRun"):
                self.objects.pop(("TrainingRun", self._some("TrainingRun")))
            case 5:
                self.now += timedelta(days=self._random.choice([-1, 1]))
            case 6:
                self.edit(self._some("FineTuneCycle"), timeZone=self._random.choice(["Etc/UTC", "Asia/Kolkata"]))
            case _:
                pass

    def _some(self, kind: str) -> str:
        return str(self._random.choice(self.list(kind))["metadata"]["name"])


def _read(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone(UTC)
