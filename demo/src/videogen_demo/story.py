"""The story: 1.0.0 is trained and released; a cycle makes 1.1.0, which takes over by canary; 1.2.0 is slow in production and rolled back.

Each chapter applies what a platform engineer would apply and waits for what kubectl shows. Nothing is scripted inside
the cluster: the operator decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from videogen_demo.kubectl import REPOSITORY, Cluster, CommandError, Manifest, condition
from videogen_demo.load import Answer, Load
from videogen_demo.removal import remove_releases

NAMESPACE = "newsroom"
CLAIM = "pib-models"
MANIFESTS = REPOSITORY / "examples/newsroom"
RUNS = ("videofusion-1-0", "videofusion-monthly", "videofusion-1-2")  # two runs, and the cycle that makes the one between them
MEASURED = 10  # answers of 1.1.0, of which the fastest says what a video takes here without a queue
TOLD_WITHIN_SECONDS = 10
LIMITS_A_VIDEO = 8.0  # for viewers who wait for one another, beside other work; 1.2.0 takes 72 times the steps of 1.1.0
# Seconds between which Envoy does not tell requests apart (docs: "Histogram bucket settings", the defaults): its 95th percentile is a guess
# inside one of these, so a limit between two of them would say nothing.
ENVOY_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
RELEASES = tuple(f"pib-videogen-videofusion-v{version}-base" for version in ("1.0.0", "1.1.0", "1.2.0"))


@dataclass
class Story:
    """What has happened so far; the view reads it from another thread."""

    cluster: Cluster
    chapter: str = "starting"
    began: float = field(default_factory=time.monotonic)
    marks: list[tuple[str, float]] = field(default_factory=list)  # what, seconds since the beginning
    lines: list[str] = field(default_factory=list)
    load: Load | None = None
    made: dict[str, str] = field(default_factory=dict)  # TrainingRun that a cycle has made, by the cycle's name

    def run(self, index: int) -> str:
        """Name of the TrainingRun of a chapter."""
        return self.made.get(RUNS[index], RUNS[index])

    def mark(self, what: str) -> None:
        """Remember when something happened, and say so."""
        self.marks.append((what, time.monotonic() - self.began))
        self.say(what)

    def say(self, line: str) -> None:
        """Add a line to the log of the view."""
        self.lines.append(f"{time.monotonic() - self.began:6.1f} s  {line}")

    def seconds_between(self, first: str, second: str) -> float | None:
        """Time between two marks, or None if one is missing."""
        times = dict(self.marks)
        return times[second] - times[first] if first in times and second in times else None


def prepare(story: Story, fresh: bool = True) -> None:
    """A namespace with Pod Security `restricted` and a claim; an earlier story's objects are removed first."""
    cluster = story.cluster
    if fresh and cluster.get("namespace", NAMESPACE):
        story.say("removing the objects of an earlier story")
        # Their pods first: a namespace that is deleted with pods in it waits for their whole grace period, however soon they end.
        cluster("delete", "finetunecycles", "--all", "--namespace", NAMESPACE)
        cluster("delete", "trainingruns", "--all", "--namespace", NAMESPACE, "--cascade=foreground", "--timeout=400s")
        remove_releases(cluster, NAMESPACE)
        cluster("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=400s")
    for manifest in yaml.safe_load_all((MANIFESTS / "namespace.yaml").read_text()):
        cluster.apply(manifest)


def apply_run(story: Story, index: int, latency_limit: float | None = None) -> None:
    """Apply the manifest of one TrainingRun; with a limit in seconds for its release's latency in place of the manifest's."""
    path = MANIFESTS / f"{RUNS[index]}.yaml"
    story.chapter = f"{RUNS[index]}: train, judge, release"
    manifest = yaml.safe_load(path.read_text())
    story.cluster.apply(manifest if latency_limit is None else with_latency_limit(manifest, latency_limit))
    story.mark(f"{RUNS[index]} begun")


def let_cycle_fire(story: Story, timeout: float = 300) -> None:
    """Apply the cycle, set to the next minute by the cluster's clock, and wait for the run that it makes then; or find that it has one."""
    cluster, name = story.cluster, RUNS[1]
    manifest = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
    story.chapter = f"{name}: a cycle; its run fine-tunes what serves"

    def made() -> str | None:
        return _newest_run(cluster.get("finetunecycle", name, NAMESPACE))

    if not made():
        cluster.apply(manifest)
        created = (cluster.get("finetunecycle", name, NAMESPACE) or {})["metadata"]["creationTimestamp"]
        cluster.apply(with_schedule(manifest, next_minute(datetime.fromisoformat(created))))
    story.mark(f"{name} applied")
    story.made[name] = cluster.wait(f"FineTuneCycle {name} to make its run", made, timeout)
    story.say(f"{name} has made {story.made[name]}")
    story.mark(f"{name} begun")


def _newest_run(cycle: Manifest | None) -> str | None:
    status = (cycle or {}).get("status") or {}
    current, past = status.get("current") or {}, status.get("history") or [{}]
    found: str | None = current.get("run") or past[0].get("run")
    return found


def next_minute(now: datetime) -> datetime:
    """The first minute that is far enough away to be told to the cluster before it begins."""
    return (now + timedelta(seconds=TOLD_WITHIN_SECONDS + 60)).replace(second=0, microsecond=0)


def with_schedule(cycle: Manifest, moment: datetime) -> Manifest:
    """A copy of the cycle that is due at this minute, and then once a year."""
    changed: Manifest = deepcopy(cycle)
    changed["spec"]["schedule"] = f"{moment.minute} {moment.hour} {moment.day} {moment.month} *"
    return changed


def with_latency_limit(run: Manifest, seconds: float) -> Manifest:
    """A copy of the run whose release may take this long."""
    changed: Manifest = deepcopy(run)
    checks = changed["spec"]["phases"][-1]["release"]["rollout"]["checks"]
    next(check for check in checks if check["metric"] == "LatencyP95Seconds")["maximum"] = f"{seconds:.4f}"
    return changed


def latency_limit(story: Story) -> float:
    """Seconds that no video of 1.2.0 keeps and every one of 1.1.0 does, on this machine as it is while few viewers ask."""
    assert story.load
    since, load = time.monotonic(), story.load

    def measured() -> list[float]:
        return [answer.seconds for answer in load.answers if answer.ok and answer.sent > since and answer.release == RELEASES[1]]

    story.cluster.wait(f"{MEASURED} videos of {RELEASES[1]}", lambda: len(measured()) >= MEASURED, 600)
    limit = limit_above(min(measured()))
    story.say(f"a video of {RELEASES[1]} takes {min(measured()):.2f} s here; {RELEASES[2]} may take {limit:.2f} s")
    return limit


def limit_above(fastest: float) -> float:
    """The first of Envoy's bounds that leaves a release with this fastest video room, in seconds."""
    wanted = LIMITS_A_VIDEO * fastest
    return next((bound for bound in ENVOY_BOUNDS if bound >= wanted), wanted)


def wait_for_run(story: Story, index: int, timeout: float = 1800) -> None:
    """Until the run has Succeeded. Raises CommandError with its reason and message if it fails."""
    name = story.run(index)
    succeeded = story.cluster.wait(f"TrainingRun {name} to end", lambda: _ended(story.cluster, name), timeout)
    if succeeded["status"] != "True":
        raise CommandError(f"TrainingRun {name} failed: {succeeded['reason']}: {succeeded['message']}")
    story.mark(f"{RUNS[index]} completed")


def _ended(cluster: Cluster, name: str) -> Manifest | None:
    found = condition(cluster.get("trainingrun", name, NAMESPACE), "Succeeded")
    return found if found.get("status") in ("True", "False") else None


def wait_for_release(story: Story, index: int, reason: str, timeout: float = 900) -> Manifest:
    """Until the release's Ready condition has this reason; returns the object."""
    name = RELEASES[index]

    def reached() -> Manifest | None:
        release = story.cluster.get("modelrelease", name, NAMESPACE)
        ready = condition(release, "Ready")
        if reason not in ("RolledBack", ready.get("reason")) and condition(release, "RolledBack").get("status") == "True":
            raise CommandError(f"{name} was rolled back: {condition(release, 'RolledBack').get('message')}")
        if condition(release, "Stalled").get("status") == "True" and reason != "RolledBack":
            raise CommandError(f"{name} stalled: {ready.get('reason')}: {ready.get('message')}")
        rolled_back = condition(release, "RolledBack").get("status") == "True"
        return release if ready.get("reason") == reason or (reason == "RolledBack" and rolled_back) else None

    release: Manifest = story.cluster.wait(f"{name} to be {reason}", reached, timeout, pause=0.3)
    story.mark(f"{name} {reason}")
    return release


def tell(story: Story, footage: Callable[[], Any], gateway: Callable[[], tuple[str, str]], fresh: bool = True) -> None:
    """The whole story. `footage()` fills the claim, `gateway()` gives the URL and the service's host name.

    `fresh` removes an earlier story's objects; without it the story goes on with them. Raises CommandError where the story goes
    another way: a run fails, or a release does not get where it should.
    """
    story.chapter = "footage into the claim"
    prepare(story, fresh)
    footage()
    story.mark("footage uploaded")
    apply_run(story, 0)
    wait_for_run(story, 0)
    wait_for_release(story, 0, "Stable")
    story.chapter = "viewers arrive"
    url, host = gateway()
    story.load = Load(url, host, viewers=2).start()
    story.cluster.wait("the first video through the gateway", lambda: any(answer.ok for answer in story.load.answers), 120)  # type: ignore[union-attr]
    story.mark("first video through the gateway")
    _quiet(story)
    let_cycle_fire(story)
    wait_for_run(story, 1)
    _busy(story)
    story.chapter = f"{RELEASES[1]}: canary 10 % -> 50 % -> 100 % under load"
    wait_for_release(story, 1, "Stable")
    _quiet(story)
    limit = latency_limit(story)
    apply_run(story, 2, limit)
    wait_for_run(story, 2)
    story.load.patience = limit  # else 1.2.0 would soon keep all viewers; without haste, so that few requests wait for it
    story.chapter = f"{RELEASES[2]}: canary; passes its gates, but is slow in production"
    wait_for_release(story, 2, "Canary")
    wait_for_release(story, 2, "RolledBack")
    story.chapter = "after the rollback"
    _calm(story)
    _judged(story)
    story.load.stop()


def _quiet(story: Story) -> None:
    """Few viewers while a model trains: on a small machine they would take the trainer's cores."""
    assert story.load
    story.load.pause = 2.0


def _busy(story: Story) -> None:
    """Viewers without a break, so that a canary soon has its minimum of requests."""
    assert story.load
    story.load.pause = 0.0


def _calm(story: Story, seconds: float = 10) -> None:
    """Let the viewers ask for a while longer: all answers must come from the release that took the traffic back."""
    since = time.monotonic()
    time.sleep(seconds)
    assert story.load
    stray = [answer for answer in story.load.answers if answer.sent > since and answer.release == RELEASES[2]]
    if stray:
        raise CommandError(f"{len(stray)} requests sent after the rollback were answered by {RELEASES[2]}")
    story.mark("calm after the rollback")


def _judged(story: Story) -> None:
    """Viewers stay until the second signal: it needs requests that the release which took over has answered meanwhile."""

    def judged() -> bool:
        rollback = ((story.cluster.get("modelrelease", RELEASES[2], NAMESPACE) or {}).get("status") or {}).get("rollback")
        return rollback is not None and not rollback.get("awaitsUntil")

    story.cluster.wait("the judgement of the slow release", judged, 300)
    story.mark("the slow release is judged")


def judge(story: Story) -> None:
    """Raise CommandError unless the told story was the one that was meant: its alert, and a video for every request."""
    slow = story.cluster.get("modelrelease", RELEASES[2], NAMESPACE)
    assert slow and story.load, "the story was told to its end"
    judge_rollback(slow["status"]["rollback"])
    judge_answers(story.load.answers)


def judge_rollback(rollback: Manifest) -> None:
    """Raise CommandError unless it was the alert that took the slow release back: its own checks come once a minute."""
    if rollback["reason"] != "Alert":
        raise CommandError(
            f"{RELEASES[2]} was rolled back by {rollback['reason']}, not by its alert: {rollback.get('message')}; look at"
            " Prometheus' alerts and Alertmanager's log in the namespace monitoring"
        )


def judge_answers(answers: Sequence[Answer]) -> None:
    """Raise CommandError if a request got no video: neither a rollout nor a rollback may cost one."""
    failed = [answer for answer in answers if not answer.ok]
    if failed:
        how = f"with status {failed[0].status}" if failed[0].status else "without an answer"
        raise CommandError(
            f"{len(failed)} of {len(answers)} requests got no video, the first {how} from {failed[0].release or 'no release'}"
            f" after {failed[0].seconds:.1f} s; look at the log of that release's pods and of the gateway"
        )


def manifests() -> list[Path]:
    """The files that the story applies, in order."""
    return [MANIFESTS / "namespace.yaml", *(MANIFESTS / f"{run}.yaml" for run in RUNS)]
