"""`python -m benchmarks.attack`: does the operator do its work while strangers press on its HTTP ports, and who does it when it is killed?

Starts a real control plane and two replicas of the real operator; 100 services with two releases each and 200 runs stand in it.
While `benchmarks.press` holds half requests open, webhooks roll services back; then the leader is killed. Loopback only, bounded
in number and time. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.figures import Figure, circumstances, percentile, table
from benchmarks.processes import resident_megabytes
from videogen_testing.control_plane import ControlPlane, control_plane, eventually
from videogen_testing.crash_story import GATEWAY, GATEWAYS
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.other_controllers import COLLECTIONS, Client, Refused, View, client, pass_preflight, route_taken
from videogen_testing.runs import JOBS, RUNS, a_claim, a_run, play, running
from videogen_testing.upstream_crds import gateway_definitions, install, own_definitions, pytorch_job_definition
from videogen_testing.webhook import an_alert, token_of

NAMESPACE = "attacked"
TOKEN = "namespace-secret"
REPLICAS = ("first", "second")
PRESS_SECONDS = 300.0
WARM_UP_SECONDS = 15.0  # every client of the press has begun, and the first ones were closed
PATIENCE_SECONDS = 400.0
PROBE_SECONDS = 2.0  # how often the kubelet asks
KEPT = 1  # services that are not rolled back before the leader is killed
GATED = {"steps": [{"weightPercent": 50, "minimumRequests": 0, "minimumSeconds": 86400}]}


@dataclass
class Seen:
    """What the benchmark has measured."""

    seconds: list[float] = field(default_factory=list)  # webhook sent -> route changed
    probes: list[float] = field(default_factory=list)  # answers of /healthz; infinite where none came
    peak_mb: float = 0.0
    takeover: float = 0.0
    ended: int = 0  # replicas that did not live
    pressed: str = ""


def main(arguments: list[str]) -> int:
    """0 when everything happened and every aim is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=__doc__)
    parser.add_argument("--services", type=int, default=100, help="each has two releases; all but one are rolled back")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--reports", type=int, default=1500, help="unfinished reports held open")
    parser.add_argument("--headers", type=int, default=5000, help="half headers held open")
    parser.add_argument("--scrapes", type=int, default=50, help="clients of /metrics")
    options = parser.parse_args(arguments)
    print(circumstances(), flush=True)
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-") as name, control_plane(Path(name)) as plane:
        install(plane.api, [*own_definitions(), pytorch_job_definition(), *gateway_definitions()])
        try:
            figures = _figures(asyncio.run(_measure(plane, options)))
        except (AssertionError, TimeoutError, Refused) as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 1
    print("\n" + table(figures))
    return 1 if any(figure.verdict == "MISSED" for figure in figures) else 0


def _figures(seen: Seen) -> list[Figure]:
    print(f"the press: {seen.pressed}")
    return [
        Figure("under attack: webhook → route, p50", percentile(seen.seconds, 0.5), "s"),
        Figure("under attack: webhook → route, p99", percentile(seen.seconds, 0.99), "s", 0.5),
        Figure("under attack: resident memory, peak", seen.peak_mb * 1e6 / 2**20, "MiB", 256),
        Figure("under attack: slowest answer of /healthz", max(seen.probes), "s", 5),
        Figure("replicas that ended by themselves", seen.ended, "", 0),
        Figure("leader killed: until the next decision", seen.takeover, "s", 20),
    ]


async def _measure(plane: ControlPlane, options: argparse.Namespace) -> Seen:
    seen = Seen()
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    plane.api.create(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims", a_claim())
    eventually(lambda: plane.api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"))
    plane.api.create(GATEWAYS.format(NAMESPACE), GATEWAY)
    with ExitStack() as stack:
        leader, standby = (_replica(plane, name, stack) for name in REPLICAS)
        leader.start()
        standby.start(ready=False)
        async with client(plane) as api, View(api, NAMESPACE).watching() as view, _playing(api, view):
            token = await _prepare(plane, api, view, options)
            await _under_attack(view, leader, token, options, seen)
            for replica in (leader, standby):
                assert replica.child is not None
                seen.ended += replica.child.poll() is not None
            await _takeover(view, leader, standby, options.services - KEPT, seen)
    return seen


def _replica(plane: ControlPlane, name: str, stack: ExitStack) -> OperatorProcess:
    folder = plane.folder / name
    folder.mkdir()
    return OperatorProcess(plane, NAMESPACE, folder, stack, VIDEOGEN_IDENTITY=name, VIDEOGEN_GATEWAY_NAMESPACE=NAMESPACE)


def _service(number: int) -> str:
    return f"service-{number:03}"


def _name(number: int, major: int) -> str:
    return f"pib-videogen-videofusion-v{major}.{number}.0-base"


async def _create_release(api: Client, number: int, major: int) -> None:
    digest = f"sha256:{major:032x}{number:032x}"
    spec = {
        "service": _service(number),
        "model": {"family": "VideoFusion", "version": f"{major}.{number}.0"},
        "serving": {"timeoutSeconds": 5},
        "artifact": {"claimName": "models", "path": "bundles/x", "digest": digest},
        "rollout": GATED,
    }
    head = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease", "metadata": {"name": _name(number, major)}}
    await api.request("POST", COLLECTIONS["ModelRelease"].format(NAMESPACE), head | {"spec": spec})


async def _prepare(plane: ControlPlane, api: Client, view: View, options: argparse.Namespace) -> str:
    """Runs whose jobs wait, and services that have a stable release and one with half of the traffic. Returns a trainer's token."""
    for number in range(options.runs):
        await api.request("POST", RUNS.format(NAMESPACE), a_run(f"run-{number:03}", NAMESPACE))
    for major, state in ((1, "Stable"), (2, "Canary")):
        for number in range(options.services):
            await _create_release(api, number, major)
        names = [_name(number, major) for number in range(options.services)]
        await view.until(lambda: all(_state(view, name) == state for name in names), PATIENCE_SECONDS, f"every release v{major} is {state}")  # noqa: B023
    await view.until(lambda: len(view.all("PyTorchJob")) == options.runs, PATIENCE_SECONDS, "a job for every run")
    await pass_preflight(api, view, "run-000", PATIENCE_SECONDS)
    jobs = JOBS.format(NAMESPACE)
    job = await asyncio.to_thread(lambda: eventually(lambda: plane.api.find(f"{jobs}/run-000-train-1")))
    (pod,) = await asyncio.to_thread(play, plane.api, NAMESPACE, job, running())
    print(f"{options.runs} runs and {2 * options.services} releases stand", flush=True)
    return await asyncio.to_thread(token_of, plane.api, NAMESPACE, pod)


def _state(view: View, name: str) -> str:
    return str((view.get("ModelRelease", name).get("status", {}).get("rollout") or {}).get("state"))


@asynccontextmanager
async def _playing(api: Client, view: View) -> AsyncIterator[None]:
    """Deployment controller and gateway: pods are ready at once, and each route is taken as it is now."""

    def work() -> list[tuple[str, dict[str, Any]]]:
        found = []
        for deployment in view.all("Deployment"):
            replicas = deployment["spec"]["replicas"]
            if deployment.get("status", {}).get("readyReplicas") != replicas:
                ready = {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}
                found.append((f"{COLLECTIONS['Deployment'].format(NAMESPACE)}/{deployment['metadata']['name']}", ready))
        routes = [(route, route_taken(route)) for route in view.all("HTTPRoute")]
        return found + [
            (f"{COLLECTIONS['HTTPRoute'].format(NAMESPACE)}/{route['metadata']['name']}", taken)
            for route, taken in routes
            if route.get("status", {}).get("parents") != taken["parents"]
        ]

    async def play_all() -> None:
        while True:
            for path, status in await view.until(work, 10**6, "something to play"):
                await api.merge(f"{path}/status", {"status": status})
            await asyncio.sleep(0.2)  # until the watch has seen what was just written

    playing = asyncio.create_task(play_all())
    try:
        yield
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)


@asynccontextmanager
async def _pressing(leader: OperatorProcess, token: str, options: argparse.Namespace, seen: Seen) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "benchmarks.press", "--seconds", str(PRESS_SECONDS)]
    command += ["--inbox", str(leader.inbox_port), "--metrics", str(leader.metrics_port)]
    command += [part for name in ("reports", "headers", "scrapes") for part in (f"--{name}", str(getattr(options, name)))]
    environment = {**os.environ, "PRESS_TOKEN": token}
    pressing = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        await asyncio.sleep(WARM_UP_SECONDS)
        yield
        assert pressing.returncode is None, f"the press was over after {PRESS_SECONDS:.0f} s, before every webhook was sent"
    finally:
        seen.pressed = (await pressing.communicate(b""))[0].decode().strip()


async def _under_attack(view: View, leader: OperatorProcess, token: str, options: argparse.Namespace, seen: Seen) -> None:
    assert leader.child is not None
    async with _pressing(leader, token, options, seen), aiohttp.ClientSession() as session:
        probing = asyncio.create_task(_probe(session, leader, seen))
        for number in range(options.services - KEPT):
            seen.seconds.append(await _roll_back(session, view, [leader], number))
        probing.cancel()
        seen.peak_mb = resident_megabytes(leader.child.pid, peak=True)


async def _probe(session: aiohttp.ClientSession, leader: OperatorProcess, seen: Seen) -> None:
    """As the kubelet does."""
    while True:
        begun = time.monotonic()
        try:
            async with session.get(f"http://127.0.0.1:{leader.health_port}/healthz", timeout=aiohttp.ClientTimeout(total=30)) as answer:
                seen.probes.append(time.monotonic() - begun if answer.status == 200 else float("inf"))
        except (aiohttp.ClientError, TimeoutError):
            seen.probes.append(float("inf"))
        await asyncio.sleep(PROBE_SECONDS)


async def _roll_back(session: aiohttp.ClientSession, view: View, replicas: list[OperatorProcess], number: int) -> float:
    """Seconds from the webhook to the event of the changed route. Sent again, as Alertmanager does, until somebody takes it."""
    alert = an_alert(_name(number, 2), NAMESPACE, datetime.now(UTC))
    begun = time.monotonic()
    sending = asyncio.create_task(_send(session, replicas, alert))
    await view.until(lambda: _second_weight(view, number) == 0, PATIENCE_SECONDS, f"{_service(number)} is rolled back")
    seconds = time.monotonic() - begun
    await sending
    return seconds


async def _send(session: aiohttp.ClientSession, replicas: list[OperatorProcess], alert: dict[str, Any]) -> None:
    body, headers = {"version": "4", "alerts": [alert]}, {"Authorization": f"Bearer {TOKEN}"}
    while True:
        for replica in replicas:
            try:
                url = f"http://127.0.0.1:{replica.inbox_port}/v1/alerts"
                async with session.post(url, json=body, headers=headers) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
        await asyncio.sleep(0.1)


def _second_weight(view: View, number: int) -> int:
    """What the newer release has in the route; 1 of a million is what keeps it warm."""
    rules = view.get("HTTPRoute", _service(number)).get("spec", {}).get("rules") or [{}]
    child = _name(number, 2).replace(".", "-")
    weights: dict[str, int] = {one["name"]: one["weight"] for one in rules[-1].get("backendRefs", [])}
    share = weights.get(child, 0) / max(1, sum(weights.values()))
    return round(100 * share)


async def _takeover(view: View, leader: OperatorProcess, standby: OperatorProcess, number: int, seen: Seen) -> None:
    assert leader.child is not None
    os.killpg(leader.child.pid, signal.SIGKILL)
    async with aiohttp.ClientSession() as session:
        seen.takeover = await _roll_back(session, view, [leader, standby], number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
