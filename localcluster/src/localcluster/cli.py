"""The command line."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from localcluster import (
    addons,
    apt,
    build,
    claim,
    cluster,
    images,
    kubectl,
    layout,
    monitoring,
    monitoring_pods,
    preflight,
    progress,
    queueing,
    status,
)
from localcluster.addons import AddonImages
from localcluster.faults import Fault
from localcluster.layout import Layout
from localcluster.monitoring_pods import Alerting, MonitoringImages

INTERRUPTED = 130
NODE_ACTIONS = {"add": cluster.add_node, "kill": cluster.kill_node, "remove": cluster.remove_node}
# What installing into another cluster needs, and the part that has it if the user has not.
ADDON_PROGRAMS = {"kubectl": "kubernetes", "helm": "helm"}


def main(argv: list[str]) -> int:
    """Runs one command; a Fault is one line and exit code 1."""
    # kubectl's options are not ours to understand.
    own, foreign = (argv[:1], argv[1:]) if argv[:1] == ["kubectl"] else (argv, [])
    arguments = parser().parse_args(own)
    arguments.foreign = foreign
    command: Callable[[argparse.Namespace, Path], int] = arguments.command
    try:
        return command(arguments, layout.checkout())
    except Fault as fault:
        print(f"localcluster: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("localcluster: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="localcluster", description="A real Kubernetes cluster on this machine.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, command: Callable[[argparse.Namespace, Path], int]) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(command=command)
        return one

    add("up", "start the cluster, and build what is missing; safe to repeat", _up)
    one = add("build", "build the Go parts, or some of them, if they are missing or their pins changed", _build)
    one.add_argument("modules", nargs="*", metavar="PART")
    one = add("tools", "what checks and tests call: Debian's programs, Helm, and the PARTs that are named", _tools)
    one.add_argument("modules", nargs="*", metavar="PART")
    add("prepare", "build and download everything that `up` needs, without starting anything", _prepare)
    down = add("down", "end everything; the cluster's state stays for the next `up`", _down)
    down.add_argument("--purge", action="store_true", help="forget the state too; binaries and built images stay")
    add("status", "one line for each part; exit code 0 if all run", _status)
    show = add("kubeconfig", "print the path of the administrator's kubeconfig", _kubeconfig)
    show.add_argument("--content", action="store_true", help="print the file instead of its path")
    add("gateway-url", "print the Gateway's address", _gateway_url)
    add("kubectl", "run the cluster's own kubectl with whatever follows", _kubectl)
    add("build-base", "build the Python base image for buildah", _build_base)
    load = add("load-image", "bring images into every node", _load_image)
    load.add_argument("images", nargs="+", metavar="IMAGE", help="a name in buildah, an image archive, or an OCI folder")
    add("prune-images", "remove images from the nodes that buildah has no more", _prune_images)
    alerts = add("alerts", "send all alerts to one webhook", _alerts)
    alerts.add_argument("--webhook", metavar="URL", help="without it, alerts go nowhere")
    alerts.add_argument("--token-file", type=Path, metavar="FILE", help="a bearer token")
    alerts.add_argument("--ca-file", type=Path, metavar="FILE", help="the authority that the webhook's certificate is verified by")
    alerts.add_argument("--server-name", metavar="NAME", help="the name in that certificate; without it, the URL's host")
    rules = add("rules", "give Prometheus a file of alert rules", _rules)
    rules.add_argument("file", type=Path)
    node = add("node", "add, kill (as by a loss of power) or remove a further real node", _node)
    node.add_argument("action", choices=tuple(NODE_ACTIONS))
    node.add_argument("name", metavar="node-N")
    add("install-kueue", "add Kueue, for namespaces with the label localcluster.videogen/kueue=true; `up` does not", _install_kueue)
    add("remove-kueue", "take Kueue away again, once its queues and what waited in them are gone", _remove_kueue)
    _add_images(add("install-addons", "give another cluster (current KUBECONFIG) what it lacks", _install_addons), AddonImages())
    pods = add("install-monitoring", "give another cluster Prometheus and Alertmanager, unless it has its own", _install_monitoring)
    pods.add_argument("--rules", type=Path, nargs="+", default=[], metavar="FILE", help="files of alert rules")
    pods.add_argument("--webhook", required=True, metavar="URL", help="who is told of alerts")
    pods.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="a bearer token for the webhook")
    pods.add_argument("--ca-file", type=Path, metavar="FILE", help="the authority that the webhook's certificate is verified by")
    _add_images(pods, MonitoringImages())
    return top


def _add_images(command: argparse.ArgumentParser, names: AddonImages | MonitoringImages) -> None:
    mirror = os.environ.get("LOCALCLUSTER_IMAGE_MIRROR", "")
    for name in names.__dataclass_fields__:
        image = addons.mirrored(getattr(names, name), mirror)
        command.add_argument(f"--{name.replace('_', '-')}-image", dest=name, default=image, metavar="IMAGE", help=f"default: {image}")


def _up(_: argparse.Namespace, repo: Path) -> int:
    running = cluster.up(repo)
    progress.say("the cluster is up")
    print(f"export KUBECONFIG={running.kubeconfig}")
    return 0


def _build(arguments: argparse.Namespace, repo: Path) -> int:
    known = claim.known_layout(repo)
    preflight.check_go(known, arguments.modules)
    with claim.exclusive(repo):
        build.ensure(known, arguments.modules)
    return 0


def _tools(arguments: argparse.Namespace, repo: Path) -> int:
    known, modules = claim.known_layout(repo), ["helm", *arguments.modules]
    preflight.check_go(known, modules)
    with claim.exclusive(repo):
        apt.ensure_tools()
        build.ensure(known, modules)
    return 0


def _prepare(_: argparse.Namespace, repo: Path) -> int:
    preflight.check(layout.Layout(repo=repo, index=0))
    with claim.exclusive(repo):
        cluster.prepare(claim.known_layout(repo))
    return 0


def _down(arguments: argparse.Namespace, repo: Path) -> int:
    cluster.down(repo, arguments.purge)
    return 0


def _status(_: argparse.Namespace, repo: Path) -> int:
    return status.show(repo)


def _kubeconfig(arguments: argparse.Namespace, repo: Path) -> int:
    file = claim.known_layout(repo).kubeconfig
    if not file.exists():
        raise Fault("there is no kubeconfig yet; `localcluster up` makes it")
    print(file.read_text() if arguments.content else file)
    return 0


def _gateway_url(_: argparse.Namespace, repo: Path) -> int:
    cluster.require_running(claim.known_layout(repo))
    url = status.gateway_url(claim.known_layout(repo))
    if not url:
        raise Fault("the Gateway has no address yet")
    print(url)
    return 0


def _kubectl(arguments: argparse.Namespace, repo: Path) -> int:
    known = claim.known_layout(repo)
    return kubectl.passthrough(known.bin / "kubectl", known.kubeconfig, arguments.foreign)


def _build_base(_: argparse.Namespace, repo: Path) -> int:
    with claim.exclusive(repo):
        images.ensure_built(claim.known_layout(repo))
    return 0


def _load_image(arguments: argparse.Namespace, repo: Path) -> int:
    cluster.load(repo, arguments.images)
    return 0


def _prune_images(_: argparse.Namespace, repo: Path) -> int:
    cluster.prune_images(repo)
    return 0


def _alerts(arguments: argparse.Namespace, repo: Path) -> int:
    given = (arguments.webhook, arguments.token_file, arguments.ca_file, arguments.server_name)
    monitoring.set_webhook(claim.known_layout(repo), *given)
    return 0


def _rules(arguments: argparse.Namespace, repo: Path) -> int:
    monitoring.set_rules(claim.known_layout(repo), arguments.file)
    return 0


def _node(arguments: argparse.Namespace, repo: Path) -> int:
    NODE_ACTIONS[arguments.action](repo, arguments.name)
    return 0


def _install_kueue(_: argparse.Namespace, repo: Path) -> int:
    preflight.check_go(claim.known_layout(repo), ["kueue"])
    queueing.install(repo)
    return 0


def _remove_kueue(_: argparse.Namespace, repo: Path) -> int:
    queueing.remove(repo)
    return 0


def _install_addons(arguments: argparse.Namespace, repo: Path) -> int:
    known = claim.known_layout(repo)
    client = _other_cluster(known)
    addons.ensure_upstream(known)
    names = AddonImages(**{name: getattr(arguments, name) for name in AddonImages.__dataclass_fields__})
    with progress.step("training-operator and Envoy Gateway"):
        addons.wait(client, addons.install(known, client, names))
    return 0


def _install_monitoring(arguments: argparse.Namespace, repo: Path) -> int:
    client = _other_cluster(claim.known_layout(repo))
    if monitoring_pods.installed_by_others(client):
        progress.say("Prometheus or Alertmanager of somebody else is there; it is left alone, see charts/videogen/README.md")
        return 0
    for file in (*arguments.rules, arguments.token_file, *([arguments.ca_file] if arguments.ca_file else [])):
        if not file.is_file():
            raise Fault(f"the file {file} does not exist")
    rules = {file.stem: file.read_text() for file in arguments.rules}
    authority = arguments.ca_file.read_text() if arguments.ca_file else ""
    alerting = Alerting(rules=rules, webhook=arguments.webhook, token=arguments.token_file.read_text().strip(), authority=authority)
    with progress.step("Prometheus and Alertmanager"):
        monitoring_pods.install(client, MonitoringImages(prometheus=arguments.prometheus, alertmanager=arguments.alertmanager), alerting)
    return 0


def _other_cluster(known: Layout) -> kubectl.Kubectl:
    """The cluster that kubectl finds by itself; builds kubectl and Helm only where the user has none."""
    parts = [part for program, part in ADDON_PROGRAMS.items() if not build.program(known, program)]
    if parts:
        preflight.check_go(known, parts)
        build.ensure(known, parts)
    client = kubectl.Kubectl(build.program(known, "kubectl"), None)
    if not client.works("get", "--raw", "/readyz"):
        raise Fault("the cluster of your KUBECONFIG does not answer, or does not know you")
    return client
