"""Digests that were rolled back, and which of them are quarantined, kept in an annotation of the service's route.

There, and not only in the statuses of the releases, for two reasons. The same request that takes the weight away says
why: an operator that dies right after it finds both. And the quarantine outlives the release: deleting and creating it
again, as a GitOps tool may do, brings no traffic to the same digest. A digest leaves when it has become stable after all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from videogen_api.model_release import Reason, RollbackRecord, Signal
from videogen_operator.kinds.model_release.observed import Observed, Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import Rollout, Trigger
from videogen_operator.kinds.model_release.states import SERVING, State
from videogen_operator.names import ANNOTATION_QUARANTINE

ANNOTATION = ANNOTATION_QUARANTINE
_TEXTS = ("digest", "release", "reason", "time", "to", "message", "awaits_until", "judgement")
CAPACITY = 32  # newest entries; the annotations of an object may have 256 KiB


@dataclass(frozen=True, slots=True)
class Entry:
    """One rollback: what was served, by which release, why, when, who took the traffic back, and what judgement.py says of it."""

    digest: str
    release: str
    reason: str
    time: str
    to: str = ""
    message: str = ""
    quarantined: bool = True  # every rollback did, when entries did not say so
    signals: tuple[str, ...] = ()
    awaits_until: str = ""
    judgement: str = ""


def entries(observed: Observed) -> tuple[Entry, ...]:
    """The annotation of the observed route, oldest first; text that is not ours is no entry."""
    annotations = (observed.route or {}).get("metadata", {}).get("annotations") or {}
    try:
        listed = json.loads(annotations.get(ANNOTATION, "[]"))
    except ValueError:
        return ()
    return tuple(entry for item in listed if (entry := _entry(item))) if isinstance(listed, list) else ()


def _entry(item: Any) -> Entry | None:
    if not isinstance(item, dict) or not {"digest", "release", "reason", "time"} <= item.keys():
        return None
    texts = {name: str(item[name]) for name in _TEXTS if name in item}
    signals = item.get("signals")
    known = tuple(str(one) for one in signals if str(one) in set(Signal)) if isinstance(signals, list) else ()
    entry = Entry(**texts, quarantined=item.get("quarantined") is not False, signals=known)
    return entry if entry.reason in set(Reason) else None


def wire(listed: Iterable[Entry]) -> str:
    """The annotation: JSON, newest last, the oldest dropped beyond the capacity."""
    return json.dumps([asdict(entry) for entry in tuple(listed)[-CAPACITY:]], separators=(",", ":"), ensure_ascii=False)


def extended(listed: Iterable[Entry], records: Iterable[tuple[str, RollbackRecord]], cured: Iterable[str]) -> tuple[Entry, ...]:
    """The entries with the rollbacks of the releases in it, without digests that have become stable."""
    merged = {(entry.release, entry.digest): entry for entry in listed}
    for release, record in records:
        merged[release, record.digest] = Entry(
            record.digest,
            release,
            record.reason.value,
            record.time,
            record.to or "",
            record.message[:200],
            record.quarantined,
            tuple(signal.value for signal in record.signals),
            record.awaits_until or "",
            record.judgement[:200],
        )
    healthy = set(cured)
    return tuple(sorted((entry for entry in merged.values() if entry.digest not in healthy), key=lambda entry: (entry.time, entry.release)))


def record(entry: Entry, reason: Reason, message: str) -> RollbackRecord:
    """The record that an entry was made of, for a status that lacks it."""
    return RollbackRecord(
        reason=reason,
        message=message[:1024],
        time=entry.time,
        to=entry.to or None,
        digest=entry.digest,
        quarantined=entry.quarantined,
        signals=[Signal(signal) for signal in entry.signals],
        awaits_until=entry.awaits_until or None,
        judgement=entry.judgement,
    )


def holding(release: Release, listed: Iterable[Entry]) -> Entry | None:
    """The entry that keeps a release from starting, unless a person asked to retry it."""
    if release.rollout.retried:
        return None
    return next((entry for entry in listed if entry.quarantined and entry.digest == release.spec.artifact.digest), None)


def unfinished(release: Release, rollout: Rollout, listed: Iterable[Entry]) -> Trigger | None:
    """A rollback of this release that the route has and its status has not."""
    if rollout.state not in SERVING | {State.PENDING}:
        return None
    for entry in listed:
        own = (entry.release, entry.digest) == (release.name, release.spec.artifact.digest)
        if own and _is_of(entry, release, rollout):
            return Trigger(Reason(entry.reason), entry.message)
    return None


def _is_of(entry: Entry, release: Release, rollout: Rollout) -> bool:
    """Whether the entry is about this rollout, and not about an earlier one or a deleted namesake."""
    time, created = moment(entry.time), moment(release.created)
    if not entry.to:
        return False  # a digest that was barred while this release took no traffic
    if rollout.traffic_since:
        return time is not None and time >= rollout.traffic_since
    return time is not None and created is not None and time > created
