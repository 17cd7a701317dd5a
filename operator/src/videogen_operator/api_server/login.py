"""How the operator reaches the API server: the pod's service account, else KUBECONFIG. Used by kopf and by `cluster.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

Login = Callable[[], kopf.ConnectionInfo]


def connection(**_: Any) -> kopf.ConnectionInfo:
    """Address and credentials, read anew at each call because tokens are rotated. Raises kopf.LoginError without any."""
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise kopf.LoginError("no credentials for the API server: run in a pod with a service account, or set KUBECONFIG")
    return found
