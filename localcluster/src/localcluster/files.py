"""Files that are either old or complete: everything is written beside its place and renamed."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Writes a file atomically; False if it had this content already."""
    if path.exists() and path.read_text() == text:
        path.chmod(mode)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    # Opened with its final mode, so that a secret is never readable for a moment.
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(path)
    return True


def write_json(path: Path, value: Any, mode: int = 0o644) -> bool:
    """Writes a value as JSON, which every Kubernetes part also accepts where it wants YAML."""
    return write(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode)


def read_json(path: Path) -> Any:
    """The value of a JSON file, or None if it is missing or was cut off by a crash."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def digest(*parts: str | bytes) -> str:
    """A short fingerprint of some texts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]
