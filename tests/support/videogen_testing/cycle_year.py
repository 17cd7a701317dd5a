"""A year of all cycles of two models, with failures, outages, crashes and people; what must hold is looked at after every step."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta

from videogen_api.fine_tune_cycle import FineTuneCycleStatus, Outcome
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
        self._on_time: set[tuple[str, str]] = set()  # cycle and scheduled time of lines that have been looked at

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

    def _check_history(self, name: str, status: FineTuneCycleStatus) -> None:
        assert status.followed is not None
        runs = Counter(past.run for past in status.history if past.run)
        assert max(runs.values(), default=1) == 1, "a run has one line"
        scheduled = [past for past in status.history if not (past.run and "-now-" in past.run)]
        assert max(Counter(past.scheduled_time for past in scheduled).values(), default=1) == 1, "a time has one line"
        assert all(past.message for past in status.history if past.outcome != Outcome.SUCCEEDED), "each says why"
        times = schedule(status.followed.schedule, status.followed.time_zone)
        for past in scheduled:
            if (name, past.scheduled_time) not in self._on_time:
                moment = datetime.fromisoformat(past.scheduled_time)
                assert times.last(moment) == moment, f"{name} has no time at {moment}"
                self._on_time.add((name, past.scheduled_time))
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
            case _:
                pass

    def _some(self, kind: str) -> str:
        return str(self._random.choice(self.list(kind))["metadata"]["name"])
