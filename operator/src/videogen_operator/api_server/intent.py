"""What is wanted of an object: by which mark it is known again, and whether an object has it. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from videogen_operator.names import ANNOTATION_APPLIED
from videogen_operator.plan import Manifest


def digest_of(manifest: Manifest) -> str:
    """16 hex digits that are the same for equal intents."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def marked(manifest: Manifest, digest: str, **identity: str) -> dict[str, Any]:
    """The manifest with the digest of what it asks for, by which we know it again."""
    annotations = dict(manifest["metadata"].get("annotations", {})) | {ANNOTATION_APPLIED: digest}
    return dict(manifest) | {"metadata": dict(manifest["metadata"]) | {"annotations": annotations} | identity}


def contains(found: Any, wanted: Any) -> bool:
    """Whether every field of the intent stands in the object; lists must have the same length. Both are of what JSON has."""
    if found == wanted:  # most of what is nested is as it was written
        return True
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and contains(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(contains, found, wanted))
    return False
