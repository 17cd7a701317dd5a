"""The operator under test has the rights that the chart gives it, and no others: its ServiceAccount, bound to what Helm renders."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from videogen_testing.control_plane import BINARIES, ROOT, Api, ControlPlane, Refused, eventually

PLACE = "namespace-of-the-test"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/{{}}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{{}}/rolebindings",
}


def operator_kubeconfig(plane: ControlPlane, namespace: str, server: str = "", *, everywhere: bool = False) -> Path:
    """Give the chart's rights to an operator that is installed in this namespace, once, and write how it logs in.

    It watches this namespace alone, or all of them. `server` is a proxy in front of the API server.
    """
    for item in objects(namespace, everywhere=everywhere):
        plane.api.create(COLLECTIONS[item["kind"]].format(namespace), item)
    path = f"{COLLECTIONS['ServiceAccount'].format(namespace)}/videogen-operator/token"
    token = plane.api.create(path, {"spec": {"audiences": ["https://kubernetes.default.svc"]}})["status"]["token"]
    eventually(lambda: _is_known(plane.api, namespace, token))
    return plane.write_kubeconfig(f"kubeconfig-{namespace}", server or plane.url, token)


def objects(namespace: str, *, everywhere: bool = False) -> list[dict[str, Any]]:
    """Account, roles and bindings, as the chart makes them."""
    found: list[dict[str, Any]] = json.loads(_rendered(everywhere).replace(PLACE, namespace))
    return found


@cache
def _rendered(everywhere: bool) -> str:
    helm = shutil.which(BINARIES / "helm") or shutil.which("helm")
    assert helm, f"no helm; build {BINARIES}/helm with: localcluster/localcluster build helm"
    command = [helm, "template", "videogen", str(ROOT / "charts/videogen"), "--namespace", PLACE]
    command += [] if everywhere else ["--set", f"watchNamespaces={{{PLACE}}}"]
    command += [part for name in ("rbac", "serviceaccount") for part in ("--show-only", f"templates/{name}.yaml")]
    environment = {"KUBECONFIG": "/dev/null", "HOME": "/nonexistent"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    return json.dumps([item for item in yaml.safe_load_all(result.stdout) if item])


def _is_known(api: Api, namespace: str, token: str) -> bool:
    """The API server's authorizer learns of roles a moment after they were made; also of its own that let accounts discover kinds."""
    try:
        for path in ("/apis", "/api/v1/nodes", f"/api/v1/namespaces/{namespace}/pods"):
            api.request("GET", path, token=token)
        api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/videogen-operator", token=token)
    except Refused as error:
        return error.code == 404
    return True
