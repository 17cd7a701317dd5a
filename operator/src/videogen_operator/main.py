"""`python -m videogen_operator`: puts the parts together, runs until a signal, a lost Lease or a deaf ear.

Exit codes: 0 after SIGTERM or SIGINT, 1 when the process must be restarted, 2 for a wrong configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import time
import uuid
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import kopf
from prometheus_client import REGISTRY

from videogen_api.job import TOKEN_AUDIENCE
from videogen_operator import resources as known
from videogen_operator.cluster import ApiError, Cluster
from videogen_operator.endpoints import application, serve
from videogen_operator.exporter import WorldCollector
from videogen_operator.handlers import register
from videogen_operator.inbox import Inbox, Mail
from videogen_operator.kinds import KINDS
from videogen_operator.leadership import Leadership
from videogen_operator.login import connection
from videogen_operator.loops import Loops
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Key, Manifest, Resource
from videogen_operator.reconcile import PASSING, Reconciler
from videogen_operator.recorder import Recorder
from videogen_operator.resync import Resync
from videogen_operator.settings import PREFIX, Settings, from_environment
from videogen_operator.telemetry import MALFORMED, QUEUE_DEPTH
from videogen_operator.tokens import PodTokens
from videogen_operator.watchdog import Watchdog
from videogen_operator.world import ObjectWorld, name_of

WRITTEN = (known.CONFIG_MAPS, known.EVENTS, known.LEASES, known.TOKEN_REVIEWS)
READ_BYTES = 64 * 1024  # for each connection; asyncio takes 256 KiB and fills them with zeros, which is 8 MB for our 30
EVENTS_SECONDS = 2.0  # at the end, for Events that still wait; the Lease is held as long
REMEMBERED_MALFORMED = 10_000  # objects; one that was forgotten is named again
log = logging.getLogger("videogen_operator")


def main() -> None:
    """Command line: no arguments but --help; the environment is the configuration."""
    names = ", ".join(PREFIX + field.name.upper() for field in fields(Settings))
    parser = argparse.ArgumentParser(prog="videogen-operator", description=__doc__, epilog=f"Environment: {names}.")
    parser.parse_args()
    try:
        settings = from_environment(os.environ)
    except ValueError as error:
        print(f"videogen-operator: {error}", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    SSLProtocol.max_size = READ_BYTES
    with asyncio.Runner() as runner:
        code = runner.run(run(settings if PREFIX + "IDENTITY" in os.environ else _named(settings, os.environ)))
        logging.shutdown()
        # Everything is put away. Ending the event loop would wait for kopf's tasks, and a watcher of kopf that was
        # cancelled twice waits for its scheduler for ever: the process would be deaf and never be started again.
        os._exit(code)


def _named(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """With an identity of this process alone: two that run on one host must not take themselves for one another.

    An identity that was given stays as it is. The chart gives the pod's name, which no other pod has at the same time, and
    of whose containers the kubelet starts the next only when the last one has ended: so a container that crashed takes its
    own Lease again at once, where a new identity would wait for its end.
    """
    return replace(settings, identity=f"{environment.get('HOSTNAME') or settings.identity}_{uuid.uuid4().hex[:8]}")


async def run(settings: Settings) -> int:
    """Lead, list, watch, decide. Returns the exit code."""
    watched = merged(resource for kind in KINDS for resource in kind.resources)
    world = ObjectWorld(watched)
    async with Cluster(connection, (*watched, *WRITTEN), world) as cluster:
        leadership = Leadership(
            cluster,
            namespace=settings.operator_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            seconds=settings.lease_seconds,
        )
        cluster.fence = leadership.check
        watchdog = Watchdog(settings.resync_seconds, leadership.holds)
        runner = await serve(application(watchdog), settings.metrics_host, settings.metrics_port)
        try:
            return await _lead(settings, watched, world, cluster, leadership, watchdog)
        finally:
            await runner.cleanup()


async def _lead(
    settings: Settings, watched: tuple[Resource, ...], world: ObjectWorld, cluster: Cluster, leadership: Leadership, watchdog: Watchdog
) -> int:
    stop = asyncio.Event()
    _catch_signals(stop)
    mail = Mail()
    recorder = Recorder(cluster.record, _now)
    reconciler = Reconciler(
        KINDS,
        world=world,
        cluster=cluster,
        prometheus=Prometheus(settings.prometheus_url),
        mail=mail,
        recorder=recorder,
        settings=settings.for_plans(),
        clock=_now,
    )
    loops = Loops[Key](reconciler.pass_once, limit=settings.concurrency, random=random.random)

    wake = waking(world, loops.wake)
    cluster.told = wake

    def changed(item: Manifest, gone: bool) -> None:
        if world.remove(item) if gone else world.store(item):
            wake(item)

    registry = kopf.OperatorRegistry()
    register(registry, watched, changed)
    resync = Resync(cluster, world, watched, settings.namespaces, wake)
    inbox = Inbox(mail, world, PodTokens(cluster, TOKEN_AUDIENCE, time.time), settings.alert_token_files, loops.wake)
    REGISTRY.register(collector := WorldCollector(world))
    QUEUE_DEPTH.set_function(lambda: loops.depth)
    keeping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        if not await _first(leadership.acquire(), stop):
            return 0
        keeping = asyncio.create_task(leadership.keep(), name="keeping the Lease")  # the first list may last longer than it
        if not await _first(_list_first(resync), stop):
            return 0
        runner = await serve(inbox.application(), settings.inbox_host, settings.inbox_port)
        watchdog.listed()  # ready only now, when the inbox can be reached
        try:
            return await _until_one_ends(
                stop,
                ("the Lease was lost", _end_of(keeping)),
                ("listing ended", resync.run(settings.resync_seconds, watchdog.listed)),
                ("the watchdog barked", watchdog.run()),
                ("recording ended", recorder.run()),
                ("watching ended", _watch(registry, settings, stop)),
            )
        finally:
            await runner.cleanup()
    finally:
        keeping.cancel()
        await loops.close()
        await recorder.close(EVENTS_SECONDS)
        REGISTRY.unregister(collector)
        await _release(leadership)


def waking(world: ObjectWorld, wake: Callable[[Key], None]) -> Callable[[Manifest], None]:
    """Wakes the loops that a changed object concerns. It never raises: an object that some other version of the schema
    let in must not end the listing, a watcher or the pass that came across it.
    """
    named: dict[tuple[str, ...], None] = {}  # in the order in which they were named

    def told(item: Manifest) -> None:
        for kind in KINDS:
            try:
                for key in kind.keys(item, world):
                    if key != PASSING.get():  # a pass knows what it has itself written
                        wake(key)
            except (AttributeError, LookupError, TypeError, ValueError):
                MALFORMED.labels(str(item.get("kind"))).inc()
                name = (kind.name, str(item.get("kind")), *name_of(item))
                if name not in named:
                    named[name] = None
                    if len(named) > REMEMBERED_MALFORMED:
                        del named[next(iter(named))]
                    log.exception("%s %s/%s is malformed, or what %ss know beside it; its change is ignored", *name[1:], kind.name)

    return told


def _now() -> datetime:
    return datetime.now(UTC)


async def _end_of(task: asyncio.Future[None]) -> None:
    await task


async def _list_first(resync: Resync) -> None:
    while True:
        try:
            await resync.once()
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("the first list failed: %r", error)
            await asyncio.sleep(2.0)
        else:
            return


async def _watch(registry: kopf.OperatorRegistry, settings: Settings, stop: asyncio.Event) -> None:
    where: dict[str, Any] = {"namespaces": settings.namespaces} if settings.namespaces else {"clusterwide": True}
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(registry=registry, standalone=True, **where)
    _catch_signals(stop)
    await kopf.run_tasks(tasks, ignored=others)


async def _first(work: Coroutine[Any, Any, Any], stop: asyncio.Event) -> bool:
    """Do the work; False if the process is to stop before it is done."""
    tasks = {asyncio.create_task(work), asyncio.create_task(stop.wait())}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
    return not stop.is_set()


async def _until_one_ends(stop: asyncio.Event, *parts: tuple[str, Coroutine[Any, Any, Any]]) -> int:
    """Run the parts, none of which should ever end, until the process is to stop. Returns the exit code."""
    tasks = {asyncio.create_task(part, name=name): name for name, part in parts}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in done if task is not stopping]
    for task in ended:
        error = None if task.cancelled() else task.exception()
        log.critical("%s%s; the process ends and must be started again", tasks[task], f": {error}" if error else "")
    for task in {*tasks, stopping} - done:
        task.cancel()
    await asyncio.wait({*tasks, stopping}, timeout=10)
    return 1 if ended and not stop.is_set() else 0


def _catch_signals(stop: asyncio.Event) -> None:
    """Called again once kopf has started and set its own handlers, with which it would wait for our tasks before it ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _release(leadership: Leadership) -> None:
    try:
        await asyncio.wait_for(leadership.release(), 5)
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        log.warning("the Lease could not be given up: %r", error)


def merged(resources: Any) -> tuple[Resource, ...]:
    """Each resource once; two kinds must declare a shared one alike, so that neither misses what it reads."""
    by_kind: dict[str, Resource] = {}
    for resource in resources:
        assert by_kind.setdefault(resource.kind, resource) == resource, f"{resource.kind} is declared in two ways"
    return tuple(by_kind.values())
