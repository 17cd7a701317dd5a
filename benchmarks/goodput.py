"""`python -m benchmarks.goodput`: one training under random kills of processes, pods and a node: how much of the time was worth it.

A TrainingRun with two workers trains on the local cluster, which gets a second node. The steps between kills are exponential with a mean
of 30 checkpoint intervals, from a seed. Nobody helps: what ends an attempt and begins the next are training-operator, the operator,
scheduler and kubelets. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Figure, circumstances, table
from videogen_demo import footage, install
from videogen_demo.kubectl import Cluster, CommandError, Manifest, condition
from videogen_testing.pod_processes import KILL_A_CHILD
from videogen_testing.stories import CLAIM, SMALL, claim, curate, namespace_manifest, phase, run, train

KILL_EVERY = 30  # checkpoint intervals, in the mean
GOODPUT = 0.90  # an aim
LOST = 1.0  # intervals, by whichever kill; an aim
NAMESPACE, RUN, NODE = "goodput", "train", "node-2"
CLIPS = 120
RECIPE: Manifest = {"frames": 8, "resolution": {"height": 32, "width": 32}, "globalBatchSize": 8}
WORKERS = 2
_POLL_SECONDS = 2.0
_AWAY_SECONDS = 120.0  # until a killed node has started again


@dataclass(slots=True)
class Attempt:
    """What is known of one attempt: the newest metrics that it told, and what of it was killed."""

    metrics: dict[str, float] = field(default_factory=dict)
    killed: str = ""


def main(arguments: list[str]) -> int:
    """0 if every aim is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goodput", description=__doc__)
    parser.add_argument("--minutes", type=float, default=40.0, help="of undisturbed training (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=20.0, help="seconds between checkpoints (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the kills (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        installation = _installation()
        print(circumstances(), flush=True)
        figures = _measured(installation, options)
    except CommandError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    print(table(figures))
    return 1 if any(figure.verdict == "MISSED" for figure in figures) else 0


def _installation() -> install.Installation:
    installation = install.ensure()
    if not installation.local:
        raise CommandError("this benchmark kills a node, and so needs the local cluster; unset KUBECONFIG")
    return installation


def _measured(installation: install.Installation, options: argparse.Namespace) -> list[Figure]:
    cluster = installation.cluster
    _remove(cluster)
    install.local_cluster("node", "add", NODE)
    try:
        cluster.apply(namespace_manifest(NAMESPACE), claim(NAMESPACE))
        with tempfile.TemporaryDirectory() as folder:
            footage.collect(Path(folder), CLIPS)
            footage.upload(cluster, NAMESPACE, CLAIM, Path(folder), installation.images["trainer"])
        step = _step_seconds(cluster)
        every, steps = max(1, round(options.interval / step)), round(60 * options.minutes / step)
        print(f"{steps} steps of about {step:.3f} s, a checkpoint every {every}", flush=True)
        began = time.monotonic()
        cluster.apply(_training(RUN, steps, every))
        attempts = _trained(cluster, random.Random(options.seed), KILL_EVERY * every)
        return list(figures_of(attempts, time.monotonic() - began, every))
    finally:
        _remove(cluster)
        install.local_cluster("node", "remove", NODE)


def _remove(cluster: Cluster) -> None:
    if cluster.get("namespace", NAMESPACE):
        cluster("delete", "trainingruns", "--all", "--namespace", NAMESPACE, "--cascade=foreground", "--timeout=180s")
        cluster("delete", "namespace", NAMESPACE, "--timeout=180s")


def _training(name: str, steps: int, every: int, *before: Manifest) -> Manifest:
    phases = (*before, train(resources=SMALL, workers={"replicas": WORKERS}, attempts=100))
    manifest = run(NAMESPACE, name, *phases, steps=steps)
    manifest["spec"]["recipe"] |= RECIPE | {"checkpoints": {"everySteps": every, "keepLast": 2}}
    return manifest


def _step_seconds(cluster: Cluster) -> float:
    """Seconds of a step of a short training, which also makes the dataset."""
    name, steps = "calibration", 150
    cluster.apply(_training(name, steps, steps, curate()))
    seconds: list[float] = []

    def over() -> bool:
        seconds.append(_metrics(phase(cluster, NAMESPACE, name, "train")).get("stepSeconds", 0.0))
        return _has_ended(cluster, name)

    cluster.wait("the calibration to end", over, 600)
    told = sorted(value for value in seconds if value)
    if not told:
        raise CommandError("the calibration has told no step's time")
    return told[len(told) // 2]


def _has_ended(cluster: Cluster, name: str) -> bool:
    """Raises CommandError if the run has failed."""
    succeeded = condition(cluster.get("trainingrun", name, NAMESPACE), "Succeeded")
    if succeeded.get("status") == "False":
        raise CommandError(f"TrainingRun {name} failed: {succeeded['reason']}: {succeeded['message']}")
    return succeeded.get("status") == "True"


def _metrics(status: Manifest) -> dict[str, float]:
    return {metric["name"]: float(metric["value"]) for metric in (status.get("progress") or {}).get("metrics", [])}


def _trained(cluster: Cluster, chance: random.Random, mean_steps: float) -> list[Attempt]:
    """Watch the training to its end and kill what the dice say -> its attempts. Kills are so many steps apart, in the mean."""
    attempts: dict[int, Attempt] = {}
    began, back = time.monotonic(), math.inf
    due = chance.expovariate(1 / mean_steps)
    while not _has_ended(cluster, RUN):
        if time.monotonic() > back:
            install.local_cluster("node", "add", NODE)
            back = math.inf
        status = phase(cluster, NAMESPACE, RUN, "train")
        attempt = attempts.setdefault(status.get("attempt", 0), Attempt())
        attempt.metrics = _metrics(status) or attempt.metrics
        step = attempt.metrics.get("step", 0.0)
        pods = _workers(cluster) if step > due and not attempt.killed else {}
        if pods:
            attempt.killed = _kill(cluster, chance, pods)
            print(f"{time.monotonic() - began:7.1f} s  step {step:.0f}: killed {attempt.killed}", flush=True)
            due = step + chance.expovariate(1 / mean_steps)
            back = time.monotonic() + _AWAY_SECONDS if NODE in attempt.killed else back
        time.sleep(_POLL_SECONDS)
    return [attempts[number] for number in sorted(attempts) if number]


def _kill(cluster: Cluster, chance: random.Random, pods: Mapping[str, str]) -> str:
    """Kill a process, a pod, or the second node if it has one of the pods, which are on these nodes -> which."""
    name = chance.choice(sorted(pods))
    kind = chance.choice(("process", "pod", "node"))
    if kind == "node" and NODE in pods.values():
        install.local_cluster("node", "kill", NODE)
        return f"{NODE} with {', '.join(pod for pod, node in pods.items() if node == NODE)}"
    if kind == "process":
        cluster("exec", name, "-n", NAMESPACE, "--", "python3", "-c", KILL_A_CHILD)
        return f"a process of {name}"
    cluster("delete", "pod", name, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false")
    return f"pod {name}"


def _workers(cluster: Cluster) -> dict[str, str]:
    """The run's running pods and their nodes."""
    pods = cluster.list("pod", NAMESPACE, f"videogen.pib.gov.in/run={RUN}")
    return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods if pod["status"].get("phase") == "Running"}


def figures_of(attempts: Sequence[Attempt], wall: float, every: int) -> Iterator[Figure]:
    """The figures of a training of `wall` seconds in all. An aim is a bound, so goodput is given by what it lacks."""

    def total(name: str) -> float:
        return sum(attempt.metrics.get(name, 0.0) for attempt in attempts)

    kills = sum(bool(attempt.killed) for attempt in attempts)
    lost = [attempt.metrics.get("repeatedSteps", 0.0) for attempt in attempts[1:]]
    yield Figure("goodput: productive of all seconds", total("productiveSeconds") / wall)
    yield Figure("of all seconds, not productive", 1 - total("productiveSeconds") / wall, "", round(1 - GOODPUT, 2))
    yield Figure("waiting for data, of all seconds", total("dataWaitSeconds") / wall)
    yield Figure("pauses for checkpoints, of all seconds", total("checkpointPauseSeconds") / wall)
    yield Figure("kills", kills)
    yield Figure("trainings without a kill, which show nothing", max(0, 1 - kills), "", 0)
    if kills:
        yield Figure(f"steps lost by a kill, of an interval of {every}: mean", sum(lost) / kills / every)
        yield Figure("steps lost by a kill, of an interval: most", max(lost, default=0.0) / every, "", LOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
