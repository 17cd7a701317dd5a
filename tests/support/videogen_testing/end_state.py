"""All objects of a namespace as one value that is equal for equal stories: what differs by chance is masked.

Masked are UIDs, versions, times, addresses, and hashes of what has a UID in it. Not compared are Events (a note that was
lost with a crash is not written again) and what the control plane itself puts into every namespace.
"""

import hashlib
import json
from typing import Any

from videogen_api.meta import GROUP
from videogen_testing.fault_proxy import TIME
from videogen_testing.other_controllers import COLLECTIONS, Client

OTHERS = (
    "/api/v1/namespaces/{}/configmaps",
    "/api/v1/namespaces/{}/pods",
    "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
)
VOLATILE = frozenset(
    {"resourceVersion", "managedFields", "creationTimestamp", "clusterIP", "clusterIPs", "generation", "observedGeneration"}
)
HASHES = frozenset({"videogen.pib.gov.in/applied"})


async def end_state(api: Client, namespace: str) -> dict[str, Any]:
    """Masked objects by kind and name."""
    found: dict[str, Any] = {}
    for path in (*COLLECTIONS.values(), *OTHERS):
        listed = await api.request("GET", path.format(namespace))
        kind = listed["kind"].removesuffix("List")
        found |= {f"{kind} {item['metadata']['name']}": item for item in listed["items"]}
    found.pop("ConfigMap kube-root-ca.crt", None)
    text = json.dumps({name: _stable(item) for name, item in sorted(found.items())}, sort_keys=True)
    for name, item in found.items():
        uid = item["metadata"]["uid"]
        text = text.replace(uid, f"uid of {name}").replace(uid[:8], "uid8")
        if file := item.get("data", {}).get("job.json"):
            digest = hashlib.sha256(file.encode()).hexdigest()
            text = text.replace(digest, "sha256").replace(f"-{digest[:8]}", "")
    state: dict[str, Any] = json.loads(TIME.sub("<time>", text.replace(namespace, "<namespace>")))
    return state


async def events(api: Client, namespace: str) -> set[str]:
    """What the operator has noted, as `object: reason: words`."""
    listed = await api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    ours = [item for item in listed["items"] if item.get("reportingController") == GROUP]  # the control plane notes things, too
    told = (f"{item['regarding']['name']}: {item['reason']}: {item['note']}" for item in ours)
    return {TIME.sub("<time>", words.replace(namespace, "<namespace>")) for words in told}


def differences(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Where two values differ, as lines `path: wanted -> found`."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = sorted(wanted.keys() | found.keys())
        return [line for key in keys for line in differences(wanted.get(key), found.get(key), f"{path}/{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [line for i, (one, other) in enumerate(zip(wanted, found, strict=True)) for line in differences(one, other, f"{path}/{i}")]
    return [] if wanted == found else [f"{path}: {json.dumps(wanted)[:300]} -> {json.dumps(found)[:300]}"]


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "<hash>" if key in HASHES else _stable(item) for key, item in value.items() if key not in VOLATILE}
    return [_stable(item) for item in value] if isinstance(value, list) else value
