"""`python -m videogen_operator`: puts the parts together, runs until a signal, a lost Lease or until it no longer sees what changes.

Exit codes: 0 after SIGTERM or SIGINT, 1 when the process must be restarted, 2 for a wrong configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
import uuid
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import kopf
from prometheus_client import REGISTRY

from videogen_api.job import TOKEN_AUDIENCE
from videogen_operator import resources as known
from videogen_operator.api_server.cluster import ApiError, Cluster
from videogen_operator.api_server.leadership import Leadership
from videogen_operator.api_server.login import connection
from videogen_operator.api_server.recorder import Recorder
from videogen_operator.api_server.resync import Place, Resync
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.exporter import WorldCollector
from videogen_operator.handlers import Changed, register
from videogen_operator.inbound.certificates import Certificate
from videogen_operator.inbound.endpoints import Renderings, metrics, probes
from videogen_operator.inbound.inbox import AlertTokens, Inbox, Mail
from videogen_operator.inbound.inbox_address import point_at_us
from videogen_operator.inbound.listening import Limits, serve
from videogen_operator.inbound.sealing import Sealing
from videogen_operator.inbound.tokens import PodTokens
from videogen_operator.kinds import KINDS
from videogen_operator.loops import Loops
from videogen_operator.metrics_query import Access, Prometheus
from videogen_operator.plan import Key, Manifest, Resource
from videogen_operator.reconcile import PASSING, Reconciler
from videogen_operator.seals import Keys
from videogen_operator.settings import PREFIX, Settings, from_environment
from videogen_operator.steady_clock import SteadyClock
from videogen_operator.waking import Gathering, Waking
from videogen_operator.watchdog import DeafError, Watchdog

WRITTEN = (known.CONFIG_MAPS, known.ENDPOINT_SLICES, known.EVENTS, known.LEASES, known.TOKEN_REVIEWS)
READ_BYTES = 64 * 1024  # for each connection; asyncio takes 256 KiB and fills them with zeros, which is 8 MB for our 30
EVENTS_SECONDS = 2.0  # at the end, for Events that still wait; the Lease is held as long
OF_METRICS = Limits(connections=64, per_address=8, answer_seconds=10.0)  # whoever reads slowly holds a rendering so long
OF_PROBES = Limits(connections=32, per_address=8)
log = logging.getLogger("videogen_operator")


@dataclass(frozen=True, slots=True)
class Scope:
    """Resources that are watched in the same namespaces; none: in all."""

    resources: tuple[Resource, ...]
    namespaces: tuple[str, ...] = ()


def main() -> None:
    """Command line: no arguments but --help; the environment is the configuration."""
    names = ", ".join(PREFIX + field.name.upper() for field in fields(Settings))
    parser = argparse.ArgumentParser(prog="videogen-operator", description=__doc__, epilog=f"Environment: {names}.")
    parser.parse_args()
    try:
        settings = from_environment(os.environ)
        _certificate(settings)
        settings.for_plans()
        Keys(settings.record_keys)
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
    watched = everything()
    world = ObjectWorld(watched, (index for kind in KINDS for index in kind.indexes))
    async with Cluster(connection, (*watched, *WRITTEN), world) as cluster:
        leadership = Leadership(
            cluster,
            namespace=settings.operator_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            seconds=settings.lease_seconds,
        )
        cluster.fence = leadership.check
        watchdog = Watchdog(settings.resync_seconds, leadership.holds, knows_leader=leadership.knows_leader)
        mail = Mail()
        REGISTRY.register(collector := WorldCollector(world, KINDS, lambda: (mail.reporters, mail.progress)))
        watching = asyncio.create_task(watchdog.run(), name="watchdog")  # of a standby too: the kubelet asks whether it lives
        servers = [
            await serve(probes(watchdog), settings.health_host, settings.health_port, name="health", limits=OF_PROBES),
            await serve(
                metrics(Renderings(REGISTRY, collector.freeze)),
                settings.metrics_host,
                settings.metrics_port,
                name="metrics",
                limits=OF_METRICS,
            ),
        ]
        try:
            return await _lead(settings, world, cluster, mail, leadership, watchdog, watching, collector)
        except DeafError as error:
            log.critical("%s; the process ends and must be started again", error)
            return 1
        finally:
            watching.cancel()
            REGISTRY.unregister(collector)
            for server in servers:
                await server.cleanup()


async def _lead(
    settings: Settings,
    world: ObjectWorld,
    cluster: Cluster,
    mail: Mail,
    leadership: Leadership,
    watchdog: Watchdog,
    watching: asyncio.Task[None],
    collector: WorldCollector,
) -> int:
    stop = asyncio.Event()
    _catch_signals(stop)
    recorder = Recorder(cluster.record, cluster.clock)
    clock = SteadyClock(cluster.clock)
    reconciler = _reconciler(settings, world, cluster, mail, recorder, clock)
    keys = Keys(settings.record_keys)
    loops = Loops[Key](reconciler.pass_once, limit=settings.concurrency, random=random.random, share=lambda key: key.namespace)
    reconciler.seals, reconciler.stand_back, recorder.is_busy = keys.seals, loops.stand_back, lambda: loops.depth > 0

    wake = Gathering(Waking(KINDS, world, loops.wake, PASSING.get).told).told
    cluster.told = wake

    def changed(item: Manifest, gone: bool) -> None:
        if world.remove(item) if gone else world.store(item):
            wake(item)

    scopes = scopes_of(everything(), settings)
    resync = Resync(cluster, world, places(scopes), wake, watchdog.heard)
    tokens = PodTokens(cluster, TOKEN_AUDIENCE, time.time)
    alert_tokens = AlertTokens(settings.alert_token_files, settings.alert_namespace_tokens)
    inbox = Inbox(KINDS, mail, world, tokens, alert_tokens, loops.wake, clock, Sealing(KINDS, world, tokens, keys.seals, clock))
    collector.waiting = loops.waiting
    keeping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        if not await _first(leadership.acquire(), stop, watching):
            return 0
        watchdog.leads()
        keeping = asyncio.create_task(leadership.keep(), name="keeping the Lease")  # the first list may last longer than it
        if not await _first(resync.until_done(watchdog.failed), stop, watching):
            return 0
        server = await serve(inbox.application(), settings.inbox_host, settings.inbox_port, certificate=_certificate(settings))
        watchdog.listed()  # ready only now, when the inbox can be reached
        try:
            return await _until_one_ends(
                stop,
                ("the Lease was lost", _end_of(keeping)),
                ("listing ended", resync.run(settings.resync_seconds, watchdog.listed, watchdog.failed)),
                ("the operator sees no changes", _end_of(watching)),
                ("recording ended", recorder.run()),
                ("the inbox is not reached any more", point_at_us(cluster, settings)),
                *(("watching ended", _watch(scope, changed, stop)) for scope in scopes),
            )
        finally:
            await server.cleanup()
    finally:
        keeping.cancel()
        await loops.close()
        await recorder.close(EVENTS_SECONDS)
        await _release(leadership)


def _reconciler(
    settings: Settings, world: ObjectWorld, cluster: Cluster, mail: Mail, recorder: Recorder, clock: Callable[[], datetime]
) -> Reconciler:
    return Reconciler(
        KINDS,
        world=world,
        cluster=cluster,
        prometheus=Prometheus(settings.prometheus_url, _access(settings)),
        mail=mail,
        recorder=recorder,
        settings=settings.for_plans,
        clock=clock,
    )


def _access(settings: Settings) -> Access:
    authority = Path(settings.prometheus_ca) if settings.prometheus_ca else None
    return Access(token_file=settings.prometheus_token_file, ca_file=authority, headers=json.loads(settings.prometheus_headers))


def _certificate(settings: Settings) -> Certificate | None:
    if not settings.inbox_certificate and not settings.inbox_key:
        return None
    if not settings.inbox_certificate or not settings.inbox_key:
        raise ValueError(f"{PREFIX}INBOX_CERTIFICATE and {PREFIX}INBOX_KEY are given together or not at all")
    return Certificate(Path(settings.inbox_certificate), Path(settings.inbox_key))


async def _end_of(task: asyncio.Future[None]) -> None:
    await task


def scopes_of(watched: tuple[Resource, ...], settings: Settings) -> tuple[Scope, ...]:
    """What is watched where. The Gateway may be in a namespace in which the operator has no right to anything else."""
    if not settings.namespaces:
        return (Scope(watched),)
    rest = tuple(resource for resource in watched if resource != known.GATEWAYS)
    return (Scope(rest, settings.namespaces), Scope((known.GATEWAYS,), (settings.gateway_namespace,)))


def places(scopes: Iterable[Scope]) -> list[Place]:
    """Each resource with each namespace in which it is listed; None: in all, or it has none."""
    return [
        (resource, namespace)
        for scope in scopes
        for resource in scope.resources
        for namespace in (scope.namespaces if resource.namespaced and scope.namespaces else (None,))
    ]


async def _watch(scope: Scope, changed: Changed, stop: asyncio.Event) -> None:
    where: dict[str, Any] = {"namespaces": scope.namespaces} if scope.namespaces else {"clusterwide": True}
    registry = kopf.OperatorRegistry()
    register(registry, scope.resources, changed)
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(registry=registry, standalone=True, **where)
    _catch_signals(stop)
    await kopf.run_tasks(tasks, ignored=others)


async def _first(work: Coroutine[Any, Any, Any], stop: asyncio.Event, watching: asyncio.Task[None]) -> bool:
    """Do the work; False if the process is to stop before it is done. Raises DeafError as the watchdog does."""
    tasks = {asyncio.create_task(work), asyncio.create_task(stop.wait())}
    done, pending = await asyncio.wait({*tasks, watching}, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks & pending:
        task.cancel()
    await asyncio.gather(*(tasks & pending), return_exceptions=True)
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


def everything() -> tuple[Resource, ...]:
    """What all kinds together read."""
    return merged(resource for kind in KINDS for resource in kind.resources)


def merged(resources: Any) -> tuple[Resource, ...]:
    """Each resource once; two kinds must declare a shared one alike, so that neither misses what it reads."""
    by_kind: dict[str, Resource] = {}
    for resource in resources:
        assert by_kind.setdefault(resource.kind, resource) == resource, f"{resource.kind} is declared in two ways"
    return tuple(by_kind.values())
