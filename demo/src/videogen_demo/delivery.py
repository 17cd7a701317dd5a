"""The product's images: built from the working tree where they have changed, and brought to where the cluster finds them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from videogen_demo.kubectl import REPOSITORY, Cluster, CommandError, run

# Settings for a cluster of somebody else's.
REGISTRY = "VIDEOGEN_REGISTRY"  # where images are pushed to and pulled from, such as registry.example.org/videos
LOADER = "VIDEOGEN_LOAD"  # a command that takes images as arguments into every node, such as `k3d image import -c mine`
KIND = "kind-"  # kind's contexts are named after its clusters


def to_local_cluster(source: Path = REPOSITORY, tag: str = "") -> dict[str, str]:
    """Built by buildah, out of whose storage the local cluster takes them, also where there is a docker daemon."""
    images = build("--engine", "buildah", source=source, tag=tag)
    done = subprocess.run([REPOSITORY / "localcluster/localcluster", "load-image", *images.values()], check=False)
    if done.returncode:
        raise CommandError("the local cluster did not take the images; the last lines say why")
    return images


def to_other_cluster(cluster: Cluster, environment: Mapping[str, str], source: Path = REPOSITORY, tag: str = "") -> dict[str, str]:
    """Pushed to a registry, or loaded into the nodes; whichever is set, else as kind wants it."""
    if registry := environment.get(REGISTRY):
        return build("--push", registry, source=source, tag=tag)
    loader = environment.get(LOADER) or kind_loader(cluster("config", "current-context").strip())
    if not loader:
        raise CommandError(
            f"the cluster of KUBECONFIG has to get the images: set {REGISTRY} to a registry that this machine may push to and the "
            f"cluster pull from, or {LOADER} to a command that loads images into its nodes"
        )
    images = build(source=source, tag=tag)
    run([*shlex.split(loader), *images.values()], timeout=1800)
    return images


def kind_loader(context: str) -> str:
    """How a kind cluster is given images; empty if the context is none of kind's."""
    return f"kind load docker-image --name {shlex.quote(context.removeprefix(KIND))}" if context.startswith(KIND) else ""


def build(*options: str, source: Path = REPOSITORY, tag: str = "") -> dict[str, str]:
    """Run images/build.py of these sources for trials: on a base image by tag, with the Triton of a wheel; operator, trainer and
    serving -> reference. With a tag the images are known by it, and not by the hash of what they are made of.
    """
    tagged = ["--tag", tag] if tag else []
    command = [sys.executable, str(source / "images/build.py"), "--development", *tagged, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CommandError("building the images failed; the lines above say why")
    references = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    return {name: f"{found.rpartition(':')[0]}:{tag}" if tag else found for name, found in references.items()}
