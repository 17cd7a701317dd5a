"""The operator under test has the rights that the chart gives it, and no others: its ServiceAccount, bound to what Helm renders.

Beyond rights, the chart's admission policies hold for it.
"""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from videogen_testing.control_plane import BINARIES, ROOT, Api, ControlPlane, Refused, eventually
from videogen_testing.patience import HANGS

PLACE = "namespace-of-the-test"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/{{}}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{{}}/rolebindings",
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}


def operator_kubeconfig(
    plane: ControlPlane, namespace: str, server: str = "", *, everywhere: bool = False, openshift: bool = False, gateways: str = ""
) -> Path:
    """Give the chart's rights to an operator that is installed in this namespace, once, and write how it logs in.

    It watches this namespace alone, or all of them. `server` is a proxy in front of the API server. `openshift`: admission guards
    owner references. `gateways` is the Gateway's namespace, by default this one.
    """
    for item in objects(namespace, everywhere=everywhere, openshift=openshift, gateways=gateways):
        plane.api.create(COLLECTIONS[item["kind"]].format(item["metadata"].get("namespace", "")), item)
    path = f"{COLLECTIONS['ServiceAccount'].format(namespace)}/videogen-operator/token"
    token = plane.api.create(path, {"spec": {"audiences": ["https://kubernetes.default.svc"]}})["status"]["token"]
    eventually(lambda: _is_known(plane.api, namespace, gateways or namespace, token))
    return plane.write_kubeconfig(f"kubeconfig-{namespace}", server or plane.url, token)


def install_policies(api: Api, *values: str, templates: tuple[str, ...] = ("admission", "requests", "pods")) -> None:
    """What the chart lets the API server refuse: everybody, and the operators of all namespaces with the default settings of one under test.

    Of each test's operator the Gateway is in its own namespace. `values`: more `key=value` of the chart.
    """
    images = ("trainer.image.repository=videogen-trainer", "serving.image.repository=videogen-serving")
    text = rendered(templates, (*images, *values))
    of_one, of_all = f'username == \\"system:serviceaccount:{PLACE}:videogen-operator\\"', 'username.endsWith(\\":videogen-operator\\")'
    assert of_one in text
    text = text.replace(of_one, of_all).replace(f'== \\"{PLACE}\\"', "== object.metadata.namespace")
    for item in json.loads(text):
        api.create(COLLECTIONS[item["kind"]], item)


def bind(api: Api, namespace: str, role: str, *users: str, kind: str = "ClusterRole") -> None:
    """Give users the rights of a role in a namespace."""
    subjects = [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"} for user in users]
    binding = {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": subjects,
    }
    api.create(COLLECTIONS["RoleBinding"].format(namespace), binding)


def objects(namespace: str, *, everywhere: bool = False, openshift: bool = False, gateways: str = "") -> list[dict[str, Any]]:
    """Account, roles and bindings, as the chart makes them."""
    values = (
        *(() if everywhere else (f"watchNamespaces={{{PLACE}}}",)),
        *(("rbac.openshift=true",) if openshift else ()),
        *((f"gateway.namespace={gateways}",) if gateways else ()),
    )
    found: list[dict[str, Any]] = json.loads(rendered(("rbac", "serviceaccount"), values).replace(PLACE, namespace))
    return found


@cache
def rendered(templates: tuple[str, ...], values: tuple[str, ...]) -> str:
    """What these templates of the chart make for the namespace PLACE, as a JSON list. `values` are `key=value`."""
    helm = shutil.which(BINARIES / "helm") or shutil.which("helm")
    assert helm, f"no helm; build {BINARIES}/helm with: localcluster/localcluster build helm"
    command = [helm, "template", "videogen", str(ROOT / "charts/videogen"), "--namespace", PLACE]
    command += [part for value in values for part in ("--set", value)]
    command += [part for name in templates for part in ("--show-only", f"templates/{name}.yaml")]
    environment = {"KUBECONFIG": "/dev/null", "HOME": "/nonexistent"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANGS, env=environment)
    return json.dumps([item for item in yaml.safe_load_all(result.stdout) if item])


def _is_known(api: Api, namespace: str, gateways: str, token: str) -> bool:
    """The API server's authorizer learns of roles a moment after they were made; also of its own that let accounts discover kinds."""
    gateways = f"/apis/gateway.networking.k8s.io/v1/namespaces/{gateways}/gateways"
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/videogen-operator"
    for path in ("/apis", "/api/v1/nodes", f"/api/v1/namespaces/{namespace}/pods", gateways, lease):
        try:
            api.request("GET", path, token=token)
        except Refused as error:
            if error.code != 404:
                return False
    return True
