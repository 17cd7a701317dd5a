"""What a trainer or Alertmanager does at the inbox of an operator under test, with tokens that the API server has signed."""

import json
import urllib.error
import urllib.request
from typing import Any

from videogen_api.job import TOKEN_AUDIENCE
from videogen_testing.control_plane import Api
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.patience import HANGS


def post(operator: OperatorProcess, path: str, token: str, body: object) -> tuple[int, Any]:
    """Status and answer."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{operator.inbox_port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=HANGS) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def token_of(api: Api, namespace: str, pod: str, audience: str = TOKEN_AUDIENCE) -> str:
    """A token as the kubelet projects it into a pod."""
    uid = api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["uid"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
    spec = {"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound}
    answer = api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {"spec": spec})
    return str(answer["status"]["token"])
