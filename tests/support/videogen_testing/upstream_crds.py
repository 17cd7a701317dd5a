"""Our CRDs, and those of what the operator and tests work with, from the very modules that the local cluster builds."""

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from videogen_testing.control_plane import ROOT, Api, eventually

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GATEWAY_API = "config/crd/standard/gateway.networking.k8s.io_{}.yaml"
ENVOY_GATEWAY = "charts/gateway-crds-helm/templates/generated/gateway.envoyproxy.io_{}.yaml"


def own_definitions() -> list[dict[str, Any]]:
    """TrainingRun and ModelRelease."""
    return [_definition(file) for file in sorted((ROOT / "crds").glob("*.yaml"))]


def pytorch_job_definition() -> dict[str, Any]:
    """PyTorchJob."""
    folder = _folder("github.com/kubeflow/training-operator", "training-operator")
    return _definition(folder / "manifests/base/crds/kubeflow.org_pytorchjobs.yaml")


def gateway_definitions() -> list[dict[str, Any]]:
    """Gateway, HTTPRoute and Envoy Gateway's BackendTrafficPolicy and HTTPRouteFilter."""
    standard, envoy = _folder("sigs.k8s.io/gateway-api"), _folder("github.com/envoyproxy/gateway")
    files = [standard / GATEWAY_API.format(plural) for plural in ("gateways", "httproutes")]
    files += [envoy / ENVOY_GATEWAY.format(plural) for plural in ("backendtrafficpolicies", "httproutefilters")]
    return [_definition(file) for file in files]


def kueue_definitions() -> list[dict[str, Any]]:
    """What Kueue makes of a job, and what an administrator writes: queues, flavors and priorities."""
    folder = _folder("sigs.k8s.io/kueue", "kueue") / "config/components/crd/bases"
    names = ("workloads", "localqueues", "clusterqueues", "resourceflavors", "workloadpriorityclasses")
    return [_definition(folder / f"kueue.x-k8s.io_{name}.yaml") for name in names]


def argo_cd_definitions() -> list[dict[str, Any]]:
    """Application, ApplicationSet and AppProject."""
    folder = _folder("github.com/argoproj/argo-cd/v3", "argo-cd") / "manifests/crds"
    return [_definition(folder / f"{name}-crd.yaml") for name in ("application", "applicationset", "appproject")]


def argo_cd_server_role() -> dict[str, Any]:
    """The ClusterRole that upstream gives the account of Argo CD's API server."""
    return _definition(
        _folder("github.com/argoproj/argo-cd/v3", "argo-cd") / "manifests/cluster-rbac/server/argocd-server-clusterrole.yaml"
    )


def install(api: Api, definitions: list[dict[str, Any]]) -> None:
    """Create what is absent, and wait until all are served."""
    for manifest in definitions:
        if api.find(f"{DEFINITIONS}/{manifest['metadata']['name']}") is None:
            api.create(DEFINITIONS, manifest)
    for manifest in definitions:
        eventually(partial(_is_served, api, manifest["metadata"]["name"]))


def _is_served(api: Api, name: str) -> bool:
    conditions = api.get(f"{DEFINITIONS}/{name}").get("status", {}).get("conditions") or []
    return any((one["type"], one["status"]) == ("Established", "True") for one in conditions)


def _definition(file: Path) -> dict[str, Any]:
    """The file's only CRD; Helm's comments and conditions around it are no YAML."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("{{")]
    found: list[dict[str, Any]] = [one for one in yaml.safe_load_all("\n".join(lines)) if one]
    assert len(found) == 1, f"{file} has {len(found)} objects"
    return found[0]


def _folder(module: str, of: str = "envoy-gateway") -> Path:
    """Where Go keeps the module that this part of the local cluster is built with; it is fetched if it is not there yet."""
    command = ["go", "mod", "download", "-json", module]
    fetched = subprocess.run(command, cwd=ROOT / "localcluster/go" / of, capture_output=True, text=True, check=True)
    return Path(json.loads(fetched.stdout)["Dir"])
