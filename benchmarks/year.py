"""A year of examples/schedule in virtual time: the real plans of cycles, runs and releases, with failures, as a picture and a table.

Nothing trains: chance decides how long attempts work and what goes wrong, and the seed makes the same year again (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from benchmarks import ROOT
from benchmarks.drawing import write
from benchmarks.year_chart import Chart
from videogen_operator.plan import Manifest
from videogen_testing.virtual_year import Account, Year

START = datetime(2026, 12, 7, tzinfo=UTC)  # a Monday: week 1 of the schedules
FILES = ("videofusion", "align-your-latents", "text2video-zero", "annual", "quarterly", "monthly", "weekly")


def schedule() -> list[Manifest]:
    """Runs and cycles of examples/schedule. All are applied on the first day; runs wait for their windows."""
    texts = [(ROOT / f"examples/schedule/{file}.yaml").read_text(encoding="utf-8") for file in FILES]
    return [item for text in texts for item in yaml.safe_load_all(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=366)
    parser.add_argument("--out", type=Path, default=ROOT / "build/year")
    asked = parser.parse_args()
    began = time.monotonic()
    applied = schedule()
    year = Year(applied, START, asked.seed)
    account = year.live(asked.days)
    cycles = [item for item in applied if item["kind"] == "FineTuneCycle"]
    end = START + timedelta(days=asked.days)
    title = f"A year of the schedule, simulated: {START:%d %b %Y} to {end:%d %b %Y}, seed {asked.seed}"
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    files = write(Chart(account, cycles, START, end, title).draw(), asked.out)
    print("\n".join(table(account, cycles)))
    took = f"{time.process_time():.1f} s of CPU ({time.monotonic() - began:.1f} s by the clock)"
    print(f"\n{year.passes:,} passes, {took}; {', '.join(str(file) for file in files)}")


def table(account: Account, cycles: Sequence[Manifest]) -> Iterator[str]:
    """What became of each cycle, of each service and of the GPUs, as Markdown."""
    yield "| cycle | runs | succeeded | failed | skipped or missed | late stages | first version | last version |"
    yield "|---|---|---|---|---|---|---|---|"
    for cycle in cycles:
        yield _row(account, cycle["metadata"]["name"])
    initial = [run for run in account.runs.values() if "initial-training" in str(run["spec"]["phases"]) or "adaptation" in str(run["spec"])]
    yield from ("", "| initial schedule | version | ended | state |", "|---|---|---|---|")
    for run in initial:
        said = next(one for one in run["status"]["conditions"] if one["type"] == "Succeeded")
        ended = said["lastTransitionTime"][:10] if said["status"] != "Unknown" else "-"
        yield f"| {run['metadata']['name']} | {run['spec']['model']['version']} | {ended} | {said['reason']} |"
    yield from ("", "| service | versions that served | rolled back | never took all traffic |", "|---|---|---|---|")
    for service in sorted({stay.service for stay in account.stays}):
        states = Counter(state for _, state in {(stay.release, stay.state) for stay in account.stays if stay.service == service})
        yield f"| {service} | {states['Stable']} | {states['RolledBack']} | {states['Failed'] + states['Rejected']} |"
    counts = Counter(what for _, what, _ in account.happened)
    yield from ("", "| what happened | times |", "|---|---|")
    yield from (f"| {what} | {count} |" for what, count in sorted(counts.items()))


def _row(account: Account, name: str) -> str:
    outcomes = Counter(past["outcome"] for (cycle, _, _), past in account.times.items() if cycle == name)
    versions = [past["version"] for (cycle, _, _), past in sorted(account.times.items()) if cycle == name and past.get("version")]
    late = sum(turn.cycle == name and turn.end > turn.due for turn in account.turns)
    runs = sum(1 for cycle, _, run in account.times if cycle == name and run)
    passed = outcomes["Skipped"] + outcomes["Missed"]
    first, last = (versions[0], versions[-1]) if versions else ("-", "-")
    return f"| {name} | {runs} | {outcomes['Succeeded']} | {outcomes['Failed']} | {passed} | {late} | {first} | {last} |"


if __name__ == "__main__":
    main()
