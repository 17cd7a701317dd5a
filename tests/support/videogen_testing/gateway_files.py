"""What a real Envoy Gateway without a cluster reads: the operator's own route and policy, and what stands around them."""

import json
from pathlib import Path
from typing import Any

from videogen_operator.kinds.model_release import route
from videogen_operator.kinds.model_release.observed import Observed
from videogen_operator.names import release_child_name
from videogen_testing.releases import NAMESPACE, SETTINGS, START

GATEWAY_PORT, POD_PORT = 8888, 9999  # in a network of their own
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
ENVOY_GATEWAY = "gateway.envoyproxy.io/v1alpha1"
GATEWAY_API = "gateway.networking.k8s.io/v1"


def write(folder: Path, observed: Observed, envoys: Path, version: str, settings: dict[str, str]) -> None:
    """Write objects and configuration into the folder. `envoys` is where func-e finds Envoy's versions.

    A service's one release is behind POD_PORT. Envoy Gateway's file provider knows no EndpointSlices, so Services become Backends,
    and stops at any consistent hash, so that part of the policy is left out.
    """
    (release,) = observed.releases
    settings = SETTINGS | {"gateway_section": ""} | settings
    made = route.route(observed, route.backends(observed.releases, {release.name: 100}, (release.name,), START), (), settings)
    for backend in made["spec"]["rules"][0]["backendRefs"]:
        backend |= {"group": "gateway.envoyproxy.io", "kind": "Backend"}
        del backend["port"]
    policy = route.traffic_policy(observed, observed.releases, settings)
    del policy["spec"]["loadBalancer"]
    endpoints = {"endpoints": [{"ip": {"address": "127.0.0.1", "port": POD_PORT}}]}
    backend = _object(ENVOY_GATEWAY, "Backend", NAMESPACE, release_child_name(release.name), endpoints)
    objects = folder / "objects"
    objects.mkdir(parents=True)
    for number, item in enumerate([*_gateway(version, settings), backend, made, policy]):
        item["metadata"].pop("ownerReferences", None)
        (objects / f"{number}.yaml").write_text(json.dumps(item))
    (folder / "envoy-gateway.yaml").write_text(json.dumps(_configuration(folder, envoys)))


def _gateway(version: str, settings: dict[str, str]) -> list[dict[str, Any]]:
    namespace, name = settings["gateway_namespace"], settings["gateway_name"]
    host = {"provider": {"type": "Host", "host": {"envoyVersion": version}}}
    listener = {"name": "http", "protocol": "HTTP", "port": GATEWAY_PORT, "allowedRoutes": {"namespaces": {"from": "All"}}}
    parameters = {"parametersRef": {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": name}}
    gateway = {"gatewayClassName": name, "infrastructure": parameters, "listeners": [listener]}
    return [
        {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": name}, "spec": {"controllerName": CONTROLLER}},
        _object(ENVOY_GATEWAY, "EnvoyProxy", namespace, name, host),
        _object(GATEWAY_API, "Gateway", namespace, name, gateway),
    ]


def _object(version: str, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def _configuration(folder: Path, envoys: Path) -> dict[str, Any]:
    host = {"configHome": str(folder / "config"), "dataHome": str(envoys), "stateHome": str(folder / "state"), "runtimeDir": str(folder)}
    files = {"type": "File", "file": {"paths": [str(folder / "objects")]}}
    return {
        "apiVersion": ENVOY_GATEWAY,
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": CONTROLLER},
        "provider": {"type": "Custom", "custom": {"resource": files, "infrastructure": {"type": "Host", "host": host}}},
        "extensionApis": {"enableBackend": True},
    }
