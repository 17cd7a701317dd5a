"""Who asked the API server for what: its audit log, which no client can leave anything out of."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "None", "nonResourceURLs": ["*"]}, {"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered request."""

    agent: str
    verb: str  # get, list, watch, create, update, patch, delete
    resource: str  # with subresource, for example trainingruns/status
    code: int
    ended: datetime


class AuditLog:
    """The log of one API server, read on from where the last reading ended."""

    def __init__(self, folder: Path) -> None:
        self._policy, self._log, self._offset = folder / "audit-policy.json", folder / "audit.log", 0
        self._policy.write_text(json.dumps(POLICY))

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of the API server that switch it on; each entry is written before its request is answered."""
        return (f"--audit-policy-file={self._policy}", f"--audit-log-path={self._log}", "--audit-log-mode=blocking")

    def read(self, *agents: str) -> list[Entry]:
        """New entries of clients whose user agent begins so; leader election apart, since it costs the same at rest."""
        with self._log.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        entries = [_entry(json.loads(line)) for line in complete.splitlines()]
        return [entry for entry in entries if entry.agent.startswith(agents) and entry.resource != "leases"]


def _entry(line: dict[str, object]) -> Entry:
    about, status = line.get("objectRef") or {}, line.get("responseStatus") or {}
    assert isinstance(about, dict)
    assert isinstance(status, dict)
    resource = "/".join(part for part in (about.get("resource"), about.get("subresource")) if part)
    ended = datetime.fromisoformat(str(line["stageTimestamp"]))
    return Entry(str(line.get("userAgent", "")), str(line["verb"]), resource, int(status.get("code", 0)), ended)


def writes(entries: list[Entry]) -> list[Entry]:
    """The requests that change something, or try to."""
    return [entry for entry in entries if entry.verb in WRITES]


def summary(entries: list[Entry]) -> str:
    """In words: how often what."""
    counted = Counter(f"{entry.verb} {entry.resource}" for entry in entries)
    return ", ".join(f"{count} × {what}" for what, count in counted.most_common()) or "nothing"
