"""The kinds' objects and queues as Prometheus gauges, read at each rendering from what there is: nothing to keep in step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from videogen_operator.plan import Key, Kind, Manifest, World

MALFORMED = (AttributeError, LookupError, TypeError, ValueError)  # one such object must not silence all the others
MOST_SERIES = 2_000  # of one metric in one namespace, so that no tenant makes the others' scrapes slow


class Family(GaugeMetricFamily):
    """A gauge whose first label is the namespace, and which has only so many series of each."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        super().__init__(name, documentation, labels=labels)
        self._of_namespace: Counter[str] = Counter()

    def tell(self, labels: Sequence[str], value: float) -> None:
        """Add a series, or count that there is no room for it."""
        self._of_namespace[labels[0]] += 1
        if self._of_namespace[labels[0]] <= MOST_SERIES:
            self.add_metric(labels, value)

    def left_out(self) -> Iterator[tuple[str, int]]:
        """Namespaces with more series than there is room for, and how many more."""
        yield from ((name, count - MOST_SERIES) for name, count in self._of_namespace.items() if count > MOST_SERIES)


class WorldCollector(Collector):
    """What the objects' statuses say, as metrics. `collect` may run in a thread if `freeze` was called on the event loop."""

    def __init__(
        self,
        world: World,
        kinds: Sequence[Kind[Any]],
        reports: Callable[[], tuple[frozenset[Key], Mapping[str, Manifest]]] = lambda: (frozenset(), {}),
    ) -> None:
        """`reports`: to whom pods have reported, and the last report of each pod by its UID."""
        self._world, self._kinds, self._reports = world, kinds, reports
        self._frozen: Mapping[str, tuple[Manifest, ...]] | None = None
        self._queue: tuple[tuple[Key, float], ...] = ()
        self.waiting: Callable[[], Iterable[tuple[Key, float]]] = tuple  # keys that wait for their pass, and for how many seconds

    def freeze(self) -> None:
        """Put aside what is told next. Stored objects never change, so that their tuple is a snapshot."""
        keys, reports = self._reports()
        self._frozen = {kind.name: tuple(self._live(kind, keys, reports)) for kind in self._kinds}
        self._queue = tuple(self.waiting())

    def _live(self, kind: Kind[Any], keys: frozenset[Key], reports: Mapping[str, Manifest]) -> Iterator[Manifest]:
        """The kind's objects, with what their pods have reported since their status was written."""
        for item in self._world.list(kind.name):
            live = item
            if Key(kind.name, item["metadata"].get("namespace", ""), item["metadata"]["name"]) in keys:
                with suppress(*MALFORMED):
                    live = kind.with_reports(self._world, item, reports)
            yield live

    def collect(self) -> Iterator[Metric]:
        """All gauges of all kinds, and how many series were left out."""
        if self._frozen is None:
            self.freeze()
        assert self._frozen is not None
        frozen, self._frozen = self._frozen, None
        yield from queues([kind.name for kind in self._kinds], self._queue)
        left_out = GaugeMetricFamily(
            "videogen_series_left_out", f"Series beyond {MOST_SERIES} of one metric in one namespace.", labels=("namespace", "metric")
        )
        for family in (family for kind in self._kinds for family in families(kind, frozen[kind.name])):
            yield family
            for namespace, count in family.left_out():
                left_out.add_metric((namespace, family.name), count)
        yield left_out


def queues(kinds: Iterable[str], waiting: Iterable[tuple[Key, float]]) -> Iterator[Metric]:
    """How many keys of each kind wait, and how long the first of them has."""
    depth = GaugeMetricFamily("videogen_reconcile_queue_depth", "Keys that wait for their pass.", labels=("kind",))
    oldest = GaugeMetricFamily("videogen_reconcile_oldest_waiting_seconds", "Time since the first of them began to wait.", labels=("kind",))
    of_kind: dict[str, list[float]] = {kind: [] for kind in kinds}
    for key, seconds in waiting:
        of_kind[key.kind].append(seconds)
    for kind, seconds_of in of_kind.items():
        depth.add_metric((kind,), len(seconds_of))
        oldest.add_metric((kind,), max(seconds_of, default=0.0))
    yield from (depth, oldest)


def families(kind: Kind[Any], items: Sequence[Manifest]) -> Iterator[Family]:
    """The kind's gauges with the samples of its objects."""
    found = {gauge: Family(gauge.name, gauge.documentation, gauge.labels) for gauge in kind.gauges}
    for item in items:
        with suppress(*MALFORMED):
            for gauge, labels, value in kind.samples(item):
                found[gauge].tell(labels, value)
    yield from found.values()
