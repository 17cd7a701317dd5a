"""Every kopf handler. They only tell what has changed; what to do about it is decided in `kinds`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import kopf

from videogen_operator.api_server.login import connection
from videogen_operator.plan import Manifest, Resource
from videogen_operator.telemetry import WATCH_REQUESTS, Watching
from videogen_operator.watchdog import WATCHER

CHUNK = 10  # objects of a page: kopf bounds no answer, and one object may have 1.5 MB, which is ten times as much in memory
OTHERS = "others"
Changed = Callable[[Manifest, bool], None]  # object, whether it is gone


def register(registry: kopf.OperatorRegistry, resources: Iterable[Resource], changed: Changed) -> None:
    """Watch the resources; kopf leaves nothing on the objects, because it only sees `on.event` handlers."""
    watched = tuple(resources)
    kopf.on.login(registry=registry)(connection)
    configure(registry, watched)
    for resource in watched:
        watch(registry, resource, changed)


def watch(registry: kopf.OperatorRegistry, resource: Resource, changed: Changed) -> None:
    """Hand on each event of one resource, the first list included."""

    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)
    async def _event(event: kopf.RawEvent, **_: Any) -> None:
        item = {"apiVersion": resource.api_version, "kind": resource.kind} | dict(event["object"])
        changed(item, event["type"] == "DELETED")


def configure(registry: kopf.OperatorRegistry, resources: Iterable[Resource]) -> None:
    """Never give up on an error of the API server, list in pages, and post no events of kopf's own."""

    @kopf.on.startup(registry=registry)
    async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.networking.error_backoffs = Patience(resources)
        settings.watching.chunk_size = CHUNK
        settings.queueing.idle_timeout = 0.1  # a worker keeps its last event, with all managedFields, for so long (kopf: 5 s)
        settings.persistence.diffbase_storage = NoDifferences()
        settings.persistence.progress_storage = NoProgress()
        for resource in resources:
            if resource.selector:
                settings.watching.label_selectors[resource.group, resource.version, resource.plural] = resource.selector


class NoDifferences(kopf.AnnotationsDiffBaseStorage):
    """For handlers of updates kopf copies each object several times to compare it, which is a third of our CPU; we have none."""

    def fetch(self, **_: Any) -> None:
        """Nothing was left on an object."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing of the object."""
        return kopf.BodyEssence()


class NoProgress(kopf.AnnotationsProgressStorage):
    """Nor have we handlers whose progress kopf would leave on an object, and take out of two copies of it for each event."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """As it is."""
        return essence


class Patience:
    """Back-offs without end, with jitter: after the last one kopf would let a watcher die. kopf asks for the first one before it sends a
    request, and for another one after each attempt that has failed: so its requests are counted here.
    """

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._plurals = frozenset(resource.plural for resource in resources)

    def __iter__(self) -> Iterator[float]:
        """About 1, 2, 4, 8, 16, 16, ... seconds, anew for each request."""
        resource, result, delay = self._resource(), Watching.BEGUN, 1.0
        while True:
            WATCH_REQUESTS.labels(resource, result).inc()
            yield delay * (1 + random.random() / 4)
            result, delay = Watching.FAILED, min(delay * 2, 16.0)

    def _resource(self) -> str:
        """Whose watcher the present task is; "others": what kopf asks besides, which kinds and namespaces there are."""
        task = asyncio.current_task()
        plural = task.get_name().removeprefix(WATCHER).partition(".")[0] if task else ""
        return plural if plural in self._plurals else OTHERS
