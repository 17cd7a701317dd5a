"""The picture of a simulated year: runs by model and cycle, teams whose turn it is, GPUs, versions in service, and what went wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from benchmarks.drawing import INK, Drawing, width_of
from videogen_api.fine_tune_cycle import LABEL_CYCLE
from videogen_operator.plan import Manifest
from videogen_testing.virtual_year import Account, Stay

WIDTH, LEFT, RIGHT = 2400.0, 200.0, 30.0
ROW, BAR, GAP = 30.0, 13.0, 22.0
DAY = timedelta(days=1)
GRID, PALE, QUIET, ALARM = "#e4e7eb", "#f5f7fa", "#7b8794", "#c81e1e"
WORK = {"curation": "#8e6bbf", "training": "#2f6fb7", "evaluation": "#d98a1f", "deployment": "#2e8b57"}
WORK_OF = {"Curate": "curation", "Evaluate": "evaluation", "TestScenarios": "evaluation", "Release": "deployment"}
TEAMS = {"data-science": "curation", "ml-engineering": "training", "qa": "evaluation", "devops": "deployment"}
USES = {"serving": "#2e8b57", "emergency": "#d1495b", "training": "#2f6fb7"}
SERVING = ("#2e8b57", "#1c6e8c")  # one release after the other
CADENCES = ("Annual", "Quarterly", "Monthly", "Weekly")
LETTERS = {
    "Preempted": "attempts preempted",
    "Diverged": "attempts diverged",
    "StorageFailed": "storage failed",
    "GateFailed": "gates not passed",
    "RolledBack": "releases rolled back",
    "HotfixAsked": "hotfixes asked for",
    "Retried": "runs retried by people",
    "QuotaExceeded": "quota exceeded",
    "OperatorDown": "operator down",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the chart with runs."""

    label: str
    runs: tuple[Manifest, ...]
    missed: tuple[datetime, ...]  # scheduled times without a run of their own


class Chart:
    """Draws an account; `cycles` are the manifests of the FineTuneCycles."""

    def __init__(self, account: Account, cycles: Sequence[Manifest], start: datetime, end: datetime, title: str) -> None:
        self._account, self._start, self._end = account, start, end
        self._cycles = {cycle["metadata"]["name"]: cycle["spec"] for cycle in cycles}
        self._drawing, self._title = Drawing(WIDTH), title
        self._y = 0.0

    def draw(self) -> Drawing:
        """The whole picture."""
        self._head()
        top = self._y
        self._axis()
        for model, rows in _models(self._account, self._cycles):
            self._heading(model)
            for row in rows:
                self._runs(row)
        self._heading("Whose turn it is: cycles that wait for a team; red where a window has closed")
        for team in TEAMS:
            self._team(team)
        self._gpus()
        self._heading("In service: the stable version, and marks where one was taken back")
        for service in sorted({stay.service for stay in self._account.stays}):
            self._service(service)
        self._heading("What went wrong, and what people did")
        for what, words in LETTERS.items():
            self._marks(what, words)
        self._grid(top)
        self._drawing.height = self._y + 24
        return self._drawing

    # Places ------------------------------------------------------------------------------------------------------

    def _x(self, moment: datetime) -> float:
        share = (min(max(moment, self._start), self._end) - self._start) / (self._end - self._start)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def _months(self) -> Iterator[datetime]:
        moment = self._start.replace(day=1, hour=0, minute=0)
        while moment < self._end:
            if moment >= self._start:
                yield moment
            moment = (moment + 32 * DAY).replace(day=1)

    def _head(self) -> None:
        self._drawing.text(20, 30, self._title, size=22)
        x, y = 20.0, 60.0
        for work, colour in WORK.items():
            team = next(team for team, of in TEAMS.items() if of == work)
            x = self._legend(x, y, colour, f"{work} ({team})")
        self._cross(x + 6, y)
        x = self._after(x + 18, y, "run failed")
        self._skip(x + 6, y)
        x = self._after(x + 18, y, "no run: skipped or missed")
        self._drawing.line((x, y), (x + 16, y), colour=ALARM, width=2)
        x = self._after(x + 22, y, "window closed")
        self._back(x + 6, y)
        x = self._after(x + 18, y, "taken back")
        self._never(x + 6, y)
        self._after(x + 18, y, "never took all traffic")
        self._y = 88.0

    def _legend(self, x: float, y: float, colour: str, words: str) -> float:
        self._drawing.box(x, y - 6, 14, 12, colour)
        return self._after(x + 20, y, words)

    def _after(self, x: float, y: float, words: str) -> float:
        self._drawing.text(x, y, words, size=12)
        return x + width_of(words, 12) + 26

    def _axis(self) -> None:
        for month in self._months():
            self._drawing.text(self._x(month) + 4, self._y + 8, f"{month:%b %Y}", size=12, colour=QUIET)
        self._y += 20

    def _grid(self, top: float) -> None:
        """Lines of the months, behind everything."""
        lines = Drawing(WIDTH)
        for month in self._months():
            lines.line((self._x(month), top), (self._x(month), self._y), colour=GRID)
        self._drawing.items[:0] = lines.items

    def _heading(self, words: str) -> None:
        self._y += GAP
        self._drawing.text(20, self._y, words, size=14)
        self._drawing.line((20, self._y + 11), (WIDTH - RIGHT, self._y + 11), colour=QUIET)
        self._y += 18

    def _label(self, words: str, y: float) -> None:
        self._drawing.text(LEFT - 12, y, words, anchor="end", size=12)

    # Runs --------------------------------------------------------------------------------------------------------

    def _runs(self, row: Row) -> None:
        bars = self._y + ROW - BAR - 2
        self._label(row.label, bars + BAR / 2)
        for moment in row.missed:
            self._skip(self._x(moment), bars + BAR / 2)
        taken = LEFT
        for run in sorted(row.runs, key=lambda one: str(one["metadata"]["creationTimestamp"])):
            x = self._run(run, bars)
            version = str(run["spec"]["model"]["version"])
            if x >= taken:
                self._drawing.text(x, self._y + 7, version, size=9.5)
                taken = x + width_of(version, 9.5) + 4
        for turn in self._account.turns:
            if turn.end > turn.due and turn.run in {run["metadata"]["name"] for run in row.runs}:
                late = max(turn.due, turn.begin)
                self._drawing.line((self._x(late), bars - 2), (self._x(turn.end), bars - 2), colour=ALARM, width=2)
        self._y += ROW

    def _run(self, run: Manifest, y: float) -> float:
        name, spec, status = run["metadata"]["name"], run["spec"], run.get("status") or {}
        tasks = {phase["name"]: phase["task"] for phase in spec["phases"]}
        last = begin = self._x(datetime.fromisoformat(run["metadata"]["creationTimestamp"]))
        for phase in status.get("phases") or ():
            if not phase.get("startTime"):
                continue
            left = self._x(datetime.fromisoformat(phase["startTime"]))
            last = self._x(datetime.fromisoformat(phase["completionTime"])) if phase.get("completionTime") else self._x(self._end)
            work = WORK_OF.get(tasks.get(phase["name"], ""), "training")
            told = f"{name} {spec['model']['version']}: {phase['name']}, {phase.get('outcome') or 'at work'}"
            self._drawing.box(left, y, max(1.5, last - left), BAR, WORK[work], title=told)
        if any(one["type"] == "Succeeded" and one["status"] == "False" for one in status.get("conditions") or ()):
            self._cross(last + 5, y + BAR / 2)
        return begin

    def _cross(self, x: float, y: float) -> None:
        self._drawing.line((x - 4, y - 4), (x + 4, y + 4), colour=ALARM, width=2)
        self._drawing.line((x - 4, y + 4), (x + 4, y - 4), colour=ALARM, width=2)

    def _skip(self, x: float, y: float) -> None:
        self._drawing.polygon((x - 4, y), (x, y - 5), (x + 4, y), (x, y + 5), fill="#ffffff", stroke=QUIET)

    # Teams, GPUs, services ---------------------------------------------------------------------------------------

    def _team(self, team: str) -> None:
        turns = [turn for turn in self._account.turns if turn.team == team]
        height, unit = ROW - 6, 5.0
        bottom = self._y + height
        self._label(team, bottom - 8)
        waiting = [change for turn in turns for change in ((turn.begin, 1), (turn.end, -1))]
        late = [change for turn in turns if turn.end > turn.due for change in ((max(turn.due, turn.begin), 1), (turn.end, -1))]
        for changes, colour in ((waiting, WORK[TEAMS[team]]), (late, ALARM)):
            for left, right, count in _steps(changes, self._end):
                top = max(bottom - count * unit, self._y)
                self._drawing.box(self._x(left), top, self._x(right) - self._x(left), bottom - top, colour, title=f"{team}: {count}")
        self._drawing.line((LEFT, bottom), (WIDTH - RIGHT, bottom), colour=GRID)
        self._y += ROW

    def _gpus(self) -> None:
        self._heading("GPUs in use")
        self._y += 8
        height, most = 120.0, 28
        bottom, unit = self._y + height, height / most
        for count in (0, 8, 16, 24):
            self._drawing.line((LEFT, bottom - count * unit), (WIDTH - RIGHT, bottom - count * unit), colour=GRID)
            self._label(str(count), bottom - count * unit)
        moments = sorted({moment for moment, _, _ in self._account.gpus} | {self._start, self._end})
        for left, right in pairwise(moments):
            base = bottom
            for use, colour in USES.items():
                count = sum(more for moment, of, more in self._account.gpus if of == use and moment <= left)
                if count:
                    title = f"{use}: {count}"
                    self._drawing.box(self._x(left), base - count * unit, self._x(right) - self._x(left), count * unit, colour, title=title)
                    base -= count * unit
        top = bottom - most * unit
        self._drawing.line((LEFT, top), (WIDTH - RIGHT, top), colour=ALARM)
        self._label("all 28", top)
        x = LEFT + 10
        for use, colour in USES.items():
            x = self._legend(x, bottom + 14, colour, use)
        self._y = bottom + 24

    def _service(self, service: str) -> None:
        y = self._y + 5
        self._label(service, y + BAR / 2 + 2)
        stays = sorted((stay for stay in self._account.stays if stay.service == service), key=lambda stay: (stay.begin, stay.version))
        for number, stay in enumerate(_merged(stay for stay in stays if stay.state == "Stable")):
            left, right = self._x(stay.begin), self._x(stay.end)
            self._drawing.box(
                left,
                y,
                max(1.5, right - left),
                BAR + 4,
                SERVING[number % 2],
                title=f"{stay.release}: {stay.begin:%d %b} to {stay.end:%d %b}",
            )
            if width_of(stay.version, 9.5) + 4 <= right - left:
                self._drawing.text(left + 3, y + BAR / 2 + 2, stay.version, size=9.5, colour="#ffffff")
        for stay in stays:
            if stay.state == "RolledBack":
                self._back(self._x(stay.begin), y + BAR + 9)
            if stay.state in {"Failed", "Rejected"}:
                self._never(self._x(stay.begin), y + BAR + 9)
        self._y += ROW + 4

    def _back(self, x: float, y: float) -> None:
        self._drawing.polygon((x - 5, y + 4), (x + 5, y + 4), (x, y - 4), fill=ALARM)

    def _never(self, x: float, y: float) -> None:
        self._drawing.polygon((x - 4, y - 4), (x + 4, y - 4), (x + 4, y + 4), (x - 4, y + 4), fill="#ffffff", stroke=ALARM)

    def _marks(self, what: str, words: str) -> None:
        found = [(moment, whom) for moment, of, whom in self._account.happened if of == what]
        self._label(f"{words}: {len(found)}", self._y + 8)
        self._drawing.line((LEFT, self._y + 8), (WIDTH - RIGHT, self._y + 8), colour=GRID)
        for moment, whom in found:
            x = self._x(moment)
            self._drawing.box(x - 1.5, self._y + 2, 3, 12, INK, title=f"{moment:%d %b %H:%M}: {whom}")
        self._y += 19


def _models(account: Account, cycles: dict[str, Manifest]) -> Iterator[tuple[str, list[Row]]]:
    """Models in the order of their first runs, each with its rows."""
    runs: dict[str, list[Manifest]] = defaultdict(list)
    for run in account.runs.values():
        runs[_line(run["spec"]["model"])].append(run)
    for line, made in runs.items():
        rows = [Row("initial schedule", tuple(run for run in made if not _cycle(run)), ())]
        for cadence in CADENCES:
            names = {name for name, spec in cycles.items() if spec["cadence"] == cadence and _line(spec["model"]) == line}
            missed = tuple(datetime.fromisoformat(time) for cycle, time, run in account.times if cycle in names and not run)
            if names:
                rows.append(Row(cadence.lower(), tuple(run for run in made if _cycle(run) in names), missed))
        yield line, rows


def _line(model: Manifest) -> str:
    return f"{model['family']} ({model['specialization']})"


def _cycle(run: Manifest) -> str:
    return str((run["metadata"].get("labels") or {}).get(LABEL_CYCLE, ""))


def _steps(changes: Iterable[tuple[datetime, int]], end: datetime) -> Iterator[tuple[datetime, datetime, int]]:
    """Spans and the count that holds in each, where it is not 0."""
    sums: dict[datetime, int] = defaultdict(int)
    for moment, change in changes:
        sums[moment] += change
    count = 0
    for left, right in pairwise([*sorted(sums), end]):
        count += sums[left]
        if count and right > left:
            yield left, right, count


def _merged(stays: Iterable[Stay]) -> list[Stay]:
    """Stays of one release that follow each other as one."""
    found: list[Stay] = []
    for stay in stays:
        if found and found[-1].release == stay.release:
            found[-1] = Stay(stay.release, stay.service, stay.version, stay.state, found[-1].begin, stay.end)
        else:
            found.append(stay)
    return found
