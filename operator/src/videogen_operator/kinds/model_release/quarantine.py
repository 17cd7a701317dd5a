"""Digests that were rolled back, kept in an annotation of the service's route.

There, and not only in the statuses of the releases, for two reasons. The same request that takes the weight away says
why: an operator that dies right after it finds both. And the quarantine outlives the release: deleting and creating it
again, as a GitOps tool may do, brings no traffic to the same digest. A digest leaves when it has become stable after all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from videogen_api.meta import GROUP
from videogen_api.model_release import Reason, RollbackRecord
from videogen_operator.kinds.model_release.observed import Observed, Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import Rollout, Trigger
from videogen_operator.kinds.model_release.states import SERVING, State

ANNOTATION = f"{GROUP}/quarantine"
CAPACITY = 32  # newest entries; the annotations of an object may have 256 KiB


@dataclass(frozen=True, slots=True)
class Entry:
    """One rollback: what was served, by which release, why, when, and who took the traffic back."""

    digest: str
    release: str
    reason: str
    time: str
    to: str = ""
    message: str = ""


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
    known = {name: str(item[name]) for name in Entry.__slots__ if name in item}
    return Entry(**known) if known["reason"] in set(Reason) else None


def wire(listed: Iterable[Entry]) -> str:
    """The annotation: JSON, newest last, the oldest dropped beyond the capacity."""
    return json.dumps([asdict(entry) for entry in tuple(listed)[-CAPACITY:]], separators=(",", ":"))


def extended(listed: Iterable[Entry], records: Iterable[tuple[str, RollbackRecord]], cured: Iterable[str]) -> tuple[Entry, ...]:
    """The entries with the rollbacks of the releases in it, without digests that have become stable."""
    merged = {(entry.release, entry.digest): entry for entry in listed}
    for release, record in records:
        entry = Entry(record.digest, release, record.reason.value, record.time, record.to or "", record.message[:200])
        merged[release, record.digest] = entry
    healthy = set(cured)
    return tuple(sorted((entry for entry in merged.values() if entry.digest not in healthy), key=lambda entry: (entry.time, entry.release)))


def holding(release: Release, listed: Iterable[Entry]) -> Entry | None:
    """The entry that keeps a release from starting, unless a person asked to retry it."""
    if release.rollout.retried:
        return None
    return next((entry for entry in listed if entry.digest == release.spec.artifact.digest), None)


def unfinished(release: Release, rollout: Rollout, listed: Iterable[Entry]) -> Trigger | None:
    """A rollback of this release that the route has and its status has not."""
    if rollout.state not in SERVING | {State.PENDING}:
        return None
    for entry in listed:
        if (entry.release, entry.digest) == (release.name, release.spec.artifact.digest) and _is_of(entry, release, rollout):
            return Trigger(Reason(entry.reason), entry.message)
    return None


def _is_of(entry: Entry, release: Release, rollout: Rollout) -> bool:
    """Whether the entry is about this rollout, and not about an earlier one or a deleted namesake."""
    time, created = moment(entry.time), moment(release.created)
    if rollout.traffic_since:
        return time is not None and time >= rollout.traffic_since
    return time is not None and created is not None and time > created
