"""What runs inside the cluster: Kubeflow's training-operator, and Envoy Gateway with one Gateway.

Both are installed from what their Go modules carry (manifests, chart), into our own cluster with images built here, or
into any other cluster (kind, k3d, a real one) with upstream's images.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import build, files, objects
from localcluster.commands import run
from localcluster.faults import Fault
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout
from localcluster.versions import ENVOY_GATEWAY, GO_PARTS, IMAGES, TRAINING_OPERATOR, UPSTREAM_IMAGES

TRAINING_NAMESPACE = "kubeflow"
ENVOY_NAMESPACE = objects.PROXIES
GATEWAY_NAMESPACE = "videogen-gateway"
GATEWAY_CLASS = "envoy"
GATEWAY = "videogen"
# Videos take minutes to make: no timer on the way may be shorter than a generation.
REQUEST_SECONDS = 900
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
STAMP = "localcluster-addons"
READY_SECONDS = 240
# Where the training-operator looks for a replacement of the init container that it injects into workers.
INIT_TEMPLATE = "/etc/config/initContainer.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonImages:
    """Which images the add-ons run; upstream's names by default, for clusters that can pull."""

    training_operator: str = UPSTREAM_IMAGES["training-operator"]
    init_container: str = UPSTREAM_IMAGES["init-container"]
    envoy_gateway: str = UPSTREAM_IMAGES["envoy-gateway"]
    envoy: str = UPSTREAM_IMAGES["envoy"]


def mirrored(image: str, mirror: str) -> str:
    """An image of upstream's under the name that it has in a mirror; the name itself without one."""
    if not mirror:
        return image
    return f"{mirror.rstrip('/')}/{image if '/' in image else f'library/{image}'}"


LOCAL_IMAGES = AddonImages(
    training_operator=IMAGES["training-operator"],
    init_container=IMAGES["python-base"],
    envoy_gateway=IMAGES["envoy-gateway"],
    envoy=IMAGES["envoy"],
)


def ensure_upstream(layout: Layout) -> None:
    """Copies manifests and chart out of the Go modules, so that a later start needs neither Go nor a network."""
    for module, source, target in (
        ("training-operator", "manifests", "training-operator"),
        ("envoy-gateway", "charts/gateway-helm", "gateway-helm"),
    ):
        part = next(part for part in GO_PARTS if part.module == module)
        folder = layout.upstream / target
        stamp = layout.upstream / f".{target}.stamp"
        if folder.is_dir() and stamp.exists() and stamp.read_text() == part.version:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(build.module_folder(layout, part) / source, folder)
        run(["chmod", "-R", "u+w", folder])  # a module's files are read-only
        if target == "gateway-helm":
            _finish_chart(folder)
        files.write(stamp, part.version)


def _finish_chart(folder: Path) -> None:
    """Does what upstream's release does with the chart in its source tree."""
    template = (folder / "values.tmpl.yaml").read_text()
    image = AddonImages().envoy_gateway
    filled = template.replace("${GatewayImage}", image).replace("${GatewayImagePullPolicy}", "IfNotPresent")
    files.write(folder / "values.yaml", filled)
    lines = (folder / "Chart.yaml").read_text().splitlines()
    # The sub-chart lies in charts/ already; naming it as a dependency would make Helm look for a repository.
    kept = lines[: lines.index("dependencies:")]
    files.write(folder / "Chart.yaml", "\n".join(kept) + "\n")
    (folder / "Chart.lock").unlink(missing_ok=True)


def install(layout: Layout, kubectl: Kubectl, images: AddonImages) -> list[str]:
    """Installs what the cluster lacks, unless it was just so installed before; the names of what is ours."""
    found = (kubectl.get("configmap", STAMP, "-n", "kube-system") or {}).get("data")
    ours = lacking(kubectl) if found is None else found.get("parts", " ".join(INSTALL)).split()
    wanted = files.digest(json.dumps(_everything(images), sort_keys=True), TRAINING_OPERATOR, ENVOY_GATEWAY, *ours)
    if found and found.get("digest") == wanted:
        return ours
    # Written first as well: what an interrupted attempt has left is still ours.
    kubectl.apply([config_map("kube-system", STAMP, {"parts": " ".join(ours)})])
    for name in ours:
        INSTALL[name](layout, kubectl, images)
    kubectl.apply([config_map("kube-system", STAMP, {"parts": " ".join(ours), "digest": wanted})])
    return ours


def lacking(kubectl: Kubectl) -> list[str]:
    """What a cluster that was never seen before does not have; somebody else's is left alone."""
    absent = [name for name, definition in SIGNS.items() if not kubectl.get("customresourcedefinition", definition)]
    if not kubectl.works("get", "gateway", GATEWAY, "-n", GATEWAY_NAMESPACE):
        absent.append("gateway")
    return absent


def _everything(images: AddonImages) -> list[Any]:
    return [training_overlay(images), init_template(images), helm_values(images), envoy_proxy(images), gateway_class(), gateway_objects("")]


def config_map(space: str, name: str, data: dict[str, str]) -> dict[str, Any]:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": space}, "data": data}


def install_training_operator(layout: Layout, kubectl: Kubectl, images: AddonImages) -> None:
    """Applies upstream's standalone overlay with our image and a few flags."""
    folder = layout.upstream / "training-operator" / "overlays" / "localcluster"
    files.write_json(folder / "kustomization.yaml", training_overlay(images))
    kubectl.apply([objects.namespace(TRAINING_NAMESPACE)])
    template = {"initContainer.yaml": json.dumps(init_template(images))}
    kubectl.apply([config_map(TRAINING_NAMESPACE, "pytorch-init-container", template)])
    manifests = kubectl("kustomize", str(folder))
    kubectl.apply_text(_without_certificate(kubectl, manifests))


def _without_certificate(kubectl: Kubectl, manifests: str) -> str:
    """Leaves out the empty Secret if there is one already: the operator has put its certificate into it."""
    name = "training-operator-webhook-cert"
    if not kubectl.get("secret", name, "-n", TRAINING_NAMESPACE):
        return manifests
    documents = manifests.split("\n---\n")
    return "\n---\n".join(text for text in documents if not ("kind: Secret" in text and f"name: {name}" in text))


def init_template(images: AddonImages) -> list[dict[str, Any]]:
    """What a worker waits in until its master's name resolves; unlike upstream's, Pod Security `restricted` lets it in.

    Python and not nslookup, so that upstream's Python image does as well as our own.
    """
    wait = (
        "import socket, sys, time\n"
        "for _ in range({{.MaxTries}}):\n"
        "    try:\n"
        "        sys.exit(not socket.gethostbyname('{{.MasterAddr}}'))\n"
        "    except OSError:\n"
        "        time.sleep(1)\n"
        "sys.exit('the master has no address')\n"
    )
    return [
        {
            "name": "init-pytorch",
            "image": images.init_container,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", wait],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
    ]


def training_overlay(images: AddonImages) -> dict[str, Any]:
    """A kustomization on top of upstream's: image, flags, the init container's template, quicker probes."""
    name, _, tag = images.training_operator.rpartition(":")
    container = {
        "name": "training-operator",
        "args": [
            f"--pytorch-init-container-template-file={INIT_TEMPLATE}",
            "--pytorch-init-container-max-tries=300",
            "--controller-threads=4",
        ],
        "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [{"name": "init-container", "mountPath": str(Path(INIT_TEMPLATE).parent)}],
        "readinessProbe": {"initialDelaySeconds": 1, "periodSeconds": 2},
    }
    volume = {"name": "init-container", "configMap": {"name": "pytorch-init-container"}}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "training-operator"},
        "spec": {"template": {"spec": {"containers": [container], "volumes": [volume]}}},
    }
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": TRAINING_NAMESPACE,
        "resources": ["../standalone"],
        "images": [{"name": "kubeflow/training-operator", "newName": name, "newTag": tag}],
        "patches": [{"patch": json.dumps(patch), "target": {"kind": "Deployment", "name": "training-operator"}}],
    }


def install_envoy_gateway(layout: Layout, kubectl: Kubectl, images: AddonImages) -> None:
    """Installs the chart, then our class and Gateway."""
    values = layout.upstream / "gateway-values.json"
    files.write_json(values, helm_values(images))
    helm = build.program(layout, "helm")
    chart = layout.upstream / "gateway-helm"
    release = ["upgrade", "--install", "envoy-gateway", str(chart), "--namespace", ENVOY_NAMESPACE, "--create-namespace"]
    run([helm, *kubectl.flags, *release, "--values", values, "--timeout", "5m"], timeout=400)
    kubectl.wait(READY_SECONDS, "deployment/envoy-gateway", "-n", ENVOY_NAMESPACE, "--for=condition=Available")
    kubectl.apply([envoy_proxy(images), gateway_class()])


def install_gateway(_: Layout, kubectl: Kubectl, __: AddonImages) -> None:
    """Makes our Gateway, of whatever class Envoy Gateway serves."""
    classes = kubectl.get("gatewayclasses")["items"]
    served = [one["metadata"]["name"] for one in classes if one["spec"]["controllerName"] == CONTROLLER]
    if not served:
        raise Fault("Envoy Gateway is installed in this cluster, but no GatewayClass of its own")
    kubectl.apply([objects.namespace(GATEWAY_NAMESPACE)])
    kubectl.apply(gateway_objects(GATEWAY_CLASS if GATEWAY_CLASS in served else served[0]))


def helm_values(images: AddonImages) -> dict[str, Any]:
    """Values of Envoy Gateway's chart."""
    return {
        "global": {"images": {"envoyGateway": {"image": images.envoy_gateway, "pullPolicy": "IfNotPresent"}}},
        "topologyInjector": {"enabled": False},
    }


def gateway_class() -> dict[str, Any]:
    """The class of Gateways that Envoy Gateway serves, with our settings for Envoy itself."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": GATEWAY_CLASS},
        "spec": {
            "controllerName": CONTROLLER,
            "parametersRef": {
                "group": "gateway.envoyproxy.io",
                "kind": "EnvoyProxy",
                "name": GATEWAY,
                "namespace": ENVOY_NAMESPACE,
            },
        },
    }


def gateway_objects(class_name: str) -> list[dict[str, Any]]:
    """A Gateway that routes of every namespace may use, and time enough for long answers."""
    target = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}]
    seconds = f"{REQUEST_SECONDS}s"
    gateway = {"namespace": GATEWAY_NAMESPACE, "name": GATEWAY}
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": gateway,
            "spec": {
                "gatewayClassName": class_name,
                "listeners": [{"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}],
            },
        },
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "ClientTrafficPolicy",
            "metadata": gateway,
            "spec": {
                "targetRefs": target,
                "timeout": {"http": {"requestReceivedTimeout": "30s", "idleTimeout": seconds, "streamIdleTimeout": seconds}},
            },
        },
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "BackendTrafficPolicy",
            "metadata": gateway,
            "spec": {"targetRefs": target, "timeout": {"http": {"requestTimeout": seconds}}},
        },
    ]


def envoy_proxy(images: AddonImages) -> dict[str, Any]:
    """How Envoy itself runs: with a fixed Service name and without a load balancer that a laptop has not."""
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyProxy",
        "metadata": {"namespace": ENVOY_NAMESPACE, "name": GATEWAY},
        "spec": {
            "provider": {
                "type": "Kubernetes",
                "kubernetes": {
                    "envoyService": {"name": GATEWAY, "type": "ClusterIP"},
                    "envoyDeployment": {
                        "name": f"envoy-{GATEWAY}",
                        "container": {
                            "image": images.envoy,
                            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
                        },
                    },
                },
            }
        },
    }


def wait(kubectl: Kubectl, ours: list[str]) -> None:
    """Until jobs are accepted and the Gateway takes traffic."""
    if "training-operator" in ours:
        available = ("deployment/training-operator", "-n", TRAINING_NAMESPACE, "--for=condition=Available")
        kubectl.wait(READY_SECONDS, *available)
    if "gateway" in ours:
        kubectl.wait(READY_SECONDS, f"gateway/{GATEWAY}", "-n", GATEWAY_NAMESPACE, "--for=condition=Programmed")
    _wait_for_webhook(kubectl)


def _wait_for_webhook(kubectl: Kubectl) -> None:
    """The webhook refuses everything for up to a minute after its pod started: asked by a job that is never made."""
    container = {"name": "pytorch", "image": "none", "command": ["true"]}
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "localcluster-probe", "namespace": "default"},
        "spec": {
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 1, "template": {"spec": {"containers": [container]}}},
            }
        },
    }
    kubectl.retry(120, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(job))


Installer = Callable[[Layout, Kubectl, AddonImages], None]
INSTALL: dict[str, Installer] = {
    "training-operator": install_training_operator,
    "envoy-gateway": install_envoy_gateway,
    "gateway": install_gateway,
}
# By what a cluster is known to have it already.
SIGNS = {
    "training-operator": "pytorchjobs.kubeflow.org",
    "envoy-gateway": "envoyproxies.gateway.envoyproxy.io",
}
