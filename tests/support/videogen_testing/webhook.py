"""What pods and Alertmanager send to the operator's inbox."""

import json
import urllib.error
import urllib.request
from datetime import datetime
from typing import Any

from videogen_api.job import TOKEN_AUDIENCE
from videogen_testing.control_plane import Api
from videogen_testing.patience import HANGS


def post(port: int, path: str, token: str, body: object) -> tuple[int, Any]:
    """HTTP status and answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=HANGS) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def token_of(api: Api, namespace: str, pod: str) -> str:
    """A token as the kubelet projects it into a pod."""
    uid = api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["uid"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
    spec = {"audiences": [TOKEN_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
    answer = api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {"spec": spec})
    return str(answer["status"]["token"])


def an_alert(release: str, namespace: str, since: datetime) -> dict[str, Any]:
    """A firing alert as Alertmanager sends it."""
    labels = {"alertname": "Slow", "release": release, "namespace": namespace}
    return {"status": "firing", "labels": labels, "annotations": {"summary": "too slow"}} | {
        "startsAt": since.isoformat(),
        "fingerprint": f"{namespace}/{release}/{since.timestamp()}",
    }
