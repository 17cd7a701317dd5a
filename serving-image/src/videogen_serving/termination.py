"""The pod's termination message: the one sentence that the operator puts into the release's status."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from videogen_api.job import TERMINATION_MESSAGE_PATH

LIMIT = 4096  # bytes that the kubelet reads


def leave_message(environment: Mapping[str, str], message: str) -> None:
    """Write the message where the kubelet looks for it; without a kubelet that place does not exist, and nothing is written."""
    log = Path(environment.get("TERMINATION_MESSAGE_PATH", TERMINATION_MESSAGE_PATH))
    if log.is_file():
        log.write_bytes(message.encode()[:LIMIT])
