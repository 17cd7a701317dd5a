"""What a person sees while it happens: objects, progress, traffic, and the log."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from videogen_demo.kubectl import CommandError, Manifest, condition
from videogen_demo.story import NAMESPACE, Story

BAR = 24


@dataclass
class View:
    """Redraws twice a second on a terminal; elsewhere prints each change as a line."""

    story: Story
    console: Console = field(default_factory=Console)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _printed: int = 0
    _seen: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._live if sys.stdout.isatty() else self._lines, name="view", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=10)

    def _live(self) -> None:
        with Live(console=self.console, refresh_per_second=4, transient=False) as live:
            while not self._stop.wait(0.5):
                live.update(self.picture())

    def _lines(self) -> None:
        while not self._stop.wait(2.0):
            self._print_news()
        self._print_news()

    def _print_news(self) -> None:
        for item in self._objects():
            name, line = item["metadata"]["name"], _one_line(item)
            if self._seen.get(name) != line:
                self._seen[name] = line
                self.story.say(line)
        for line in self.story.lines[self._printed :]:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._printed = len(self.story.lines)

    def _objects(self) -> list[Manifest]:
        try:
            return [item for kind in ("finetunecycle", "trainingrun", "modelrelease") for item in self.story.cluster.list(kind, NAMESPACE)]
        except CommandError:
            return []  # the resources are not installed yet, or the API server is busy: the next picture shows them

    def picture(self) -> Group:
        """The whole screen."""
        story, table = self.story, Table(expand=True, box=None, pad_edge=False)
        for column in ("object", "status", "progress", "what it is doing"):
            table.add_column(column, overflow="ellipsis", no_wrap=column != "what it is doing")
        for item in self._objects():
            table.add_row(*_row(item))
        log = Text("\n".join(story.lines[-8:]))
        title = f"pib-videogen   {time.monotonic() - story.began:5.0f} s   {story.chapter}"
        return Group(Panel(table, title=title), *self._traffic(), Panel(log, title="log"))

    def _traffic(self) -> list[Panel]:
        load = self.story.load
        if load is None:
            return []
        recent = load.recent()
        table = Table(box=None, expand=True, show_header=False)
        for release, share in load.shares().items():
            latency = sorted(answer.seconds for answer in recent if answer.release == release)
            p95 = latency[int(0.95 * (len(latency) - 1))] if latency else 0.0
            table.add_row(release, f"{'█' * round(share * BAR):<{BAR}} {share:4.0%}", f"p95 {p95:.2f} s")
        return [Panel(table, title=f"answers of the last 15 s: {len(recent)}, failed in all: {len(load.failures())}")]


def _row(item: Manifest) -> tuple[str, str, str, str]:
    run = item["kind"] == "TrainingRun"
    state = condition(item, "Succeeded" if run else "Ready")
    summary = (item.get("status") or {}).get("summary") or {}
    shown = ("phase", "progress", "eta") if run else ("weight",)
    progress = " ".join(summary[key] for key in shown if summary.get(key))
    reason, message = state.get("reason") or summary.get("status", ""), state.get("message") or summary.get("message", "")
    return item["metadata"]["name"], reason, progress, message


def _one_line(item: Manifest) -> str:
    name, reason, progress, message = _row(item)
    return f"{name}: {reason} {message or progress}"
