"""A whole status as one JSON patch, where server-side apply cannot say it."""

from __future__ import annotations

from typing import Any

from videogen_operator.api_server.world import split_conditions
from videogen_operator.plan import Manifest, Resource, StatusWrite


def recreated(answer: Manifest, write: StatusWrite, resource: Resource) -> list[dict[str, Any]]:
    """JSON patch to the status and others' conditions, and to nothing else. Nobody owns by it what it only leaves in place."""
    listed = [*(write.status.get("conditions") or []), *split_conditions(answer, resource)[1]]
    return [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": answer["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/status", "value": {**write.status, "conditions": listed}},
    ]
