"""Seals of records: whoever may write the storage cannot forge a result, because no pod has the key.

The MAC is HMAC-SHA-256 (RFC 2104) over the canonical JSON of record and namespace, so that a record counts in no other namespace.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videogen_api.bundle import canonical_json

LEAST_BYTES = 32  # of a key: as many as the digest has (RFC 2104, section 3)
KEY_ID = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")  # files of other names in the folder are the kubelet's
KEY_ID_FIELD, MAC_FIELD = "keyID", "mac"
KEYS_SECONDS = 1.0  # after which a key that was added or taken away is known
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seals:
    """Keys by their IDs. The one whose ID sorts last seals; all of them are accepted, so that a key can be exchanged."""

    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def sealed(self, record: Mapping[str, Any], namespace: str) -> dict[str, Any]:
        """The record with key ID and MAC. AssertionError without a key."""
        assert self.keys, "nothing can be sealed without a key"
        whole = {**record, KEY_ID_FIELD: max(self.keys)}
        return whole | {MAC_FIELD: _mac(self.keys[max(self.keys)], whole, namespace)}

    def problem(self, record: Mapping[str, Any], namespace: str) -> str:
        """Why a record does not count in the namespace; empty if it does."""
        key = self.keys.get(str(record.get(KEY_ID_FIELD)))
        if key is None:
            known = ", ".join(sorted(self.keys)) or "none"
            return f"it is sealed with key {str(record.get(KEY_ID_FIELD))[:63]!r}, which this operator does not have (it has {known})"
        rest = {name: value for name, value in record.items() if name != MAC_FIELD}
        if hmac.compare_digest(_mac(key, rest, namespace).encode(), str(record.get(MAC_FIELD)).encode()):
            return ""
        return f"its MAC is not the one of its content in namespace {namespace}: it was changed, or copied from elsewhere"


def read(folder: Path | None) -> Seals:
    """The keys in a folder: a file for each, named by its ID. Raises ValueError for one that is too short; OSError."""
    found = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    keys = {path.name: path.read_bytes() for path in found if KEY_ID.fullmatch(path.name)}
    for name, key in keys.items():
        if len(key) < LEAST_BYTES:
            raise ValueError(f"{name} in {folder} has {len(key)} bytes; a key of records has at least {LEAST_BYTES}, at random")
    return Seals(keys)


class Keys:
    """The keys of a folder as they are now: a Secret changes while it is mounted. What cannot be read leaves the last ones in use."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError or OSError as `read` does."""
        self._folder, self._clock = folder, clock
        self._seals, self._read_at = read(folder), clock()

    def seals(self) -> Seals:
        """The newest keys."""
        if self._folder and self._clock() - self._read_at >= KEYS_SECONDS:
            self._read_at = self._clock()
            try:
                self._seals = read(self._folder)
            except (OSError, ValueError) as error:
                log.warning("keys of records cannot be read, so the last ones stay in use: %s", error)
        return self._seals


def _mac(key: bytes, record: Mapping[str, Any], namespace: str) -> str:
    return hmac.new(key, canonical_json({"namespace": namespace, "record": record}), hashlib.sha256).hexdigest()
