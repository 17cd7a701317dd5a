"""What cycles have measured of a release in production: whom a release believes, what it keeps, and whether its gates still pass.

A run is believed if the cycle that it names measures the release's service and knows the run by its own status, which the operator alone
writes; if nobody has changed the run since it was made; and if it measured the very bundle that is served. What a run has measured is what
its own PyTorchJob's pods have reported (`training_run/observed.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from videogen_api.evaluation import MetricResult, Verdict
from videogen_api.fine_tune_cycle import LABEL_CYCLE, LABEL_MEASURES
from videogen_api.gates import judge, measurement
from videogen_api.measurement import MEASUREMENTS, RESULTS, Measurement
from videogen_api.model_release import ModelReleaseSpec, ModelReleaseStatus
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import Rollout
from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.plan import Manifest, World

CYCLE, RUN = "FineTuneCycle", "TrainingRun"


def of_release(world: World, release: Manifest, spec: ModelReleaseSpec, status: ModelReleaseStatus) -> tuple[Measurement, ...]:
    """What was measured of a release, the oldest first: what its status has, and the runs that have ended since."""
    namespace, name = release["metadata"]["namespace"], release["metadata"]["name"]
    known = {one.run: one for one in status.measurements}
    for run in world.list(RUN, namespace, {LABEL_MEASURES: name}):
        cycle = world.get(CYCLE, namespace, run["metadata"]["labels"].get(LABEL_CYCLE, ""))
        if run["metadata"]["name"] not in known and cycle is not None and is_believed(run, cycle, name, spec):
            known |= {one.run: one for one in _read(run, str(cycle["metadata"]["name"]))}
    ordered = sorted(known.values(), key=lambda one: (one.time, one.run))
    return tuple(ordered[-MEASUREMENTS:])


def is_believed(run: Manifest, cycle: Manifest, release: str, spec: ModelReleaseSpec) -> bool:
    """Whether what a run says counts for a release. Labels alone are anybody's to write."""
    status, made = cycle.get("status") or NOTHING, run["metadata"]["name"]
    named = {(status.get("current") or NOTHING).get("run"), *(past.get("run") for past in status.get("history") or ())}
    init, pinned = _at(run, "spec", "initFrom") or NOTHING, _at(run, "status", "initFrom") or NOTHING
    return (
        made in named
        and _at(cycle, "spec", "target", "service") == spec.service
        and int(run["metadata"].get("generation") or 0) == 1
        and init.get("release") == release
        and pinned.get("digest") == spec.artifact.digest
    )


def failed_gates(spec: ModelReleaseSpec, rollout: Rollout, measurements: Sequence[Measurement]) -> str:
    """Gates that the newest measurement of their metric does not pass, in words; "" if there is none. What was measured before the release
    took its present traffic says nothing of it; nor what no gate is about, or too few samples.
    """
    if not spec.rollback.on_measurement or rollout.traffic_since is None:
        return ""
    said = []
    for gate in spec.gates:
        newest = next((one for one in reversed(measurements) if measurement(gate, one.results) is not None), None)
        time = moment(newest.time) if newest else None
        if newest is None or time is None or time <= rollout.traffic_since:
            continue
        verdict, words = judge(gate, newest.results)
        if verdict == Verdict.FAILED:
            said.append(f"{words}, measured by run {newest.run} of cycle {newest.cycle}")
    return "; ".join(said)


def _read(run: Manifest, cycle: str) -> Iterator[Measurement]:
    """The results of a run that has ended, if it has any that this operator can read."""
    if conditions(run).get("Succeeded", NOTHING).get("status") not in {"True", "False"}:
        return
    phases = [one for one in _at(run, "status", "phases") or () if one.get("results")]
    ends = [str(one["completionTime"]) for one in phases if one.get("completionTime")]
    results = list(_readable(result for one in phases for result in one["results"]))[:RESULTS]
    if results and ends:
        yield Measurement(run=run["metadata"]["name"], cycle=cycle, time=max(ends), results=results)


def _readable(results: Iterator[Any]) -> Iterator[MetricResult]:
    for result in results:
        try:
            yield MetricResult.model_validate(result)
        except ValidationError:  # of another version of the API
            continue


def _at(item: object, *path: str) -> Any:
    for name in path:
        item = item.get(name) if isinstance(item, Mapping) else None
    return item
