"""Bringing images from buildah into a node's containerd without copying anything big.

Trainer and serving share a layer of gigabytes; packing, sending and unpacking it would take minutes and four times its
place. But buildah and containerd keep an unpacked layer in the same form, a folder for overlayfs, and neither ever
writes to it. So a layer that containerd lacks is made out of hard links to buildah's files, under the name by which
containerd would look for it before unpacking. What is then imported is only the manifest and the configuration.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from localcluster import archives, links, progress, storage
from localcluster.commands import run, succeeds, tail
from localcluster.faults import Fault
from localcluster.node import Node

GC_ROOT = "containerd.io/gc.root"


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The names of snapshots, by OCI's rule: each is a digest over the one below and its own layer."""
    chain: list[str] = []
    for diff_id in diff_ids:
        below = hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest() if chain else ""
        chain.append(f"sha256:{below}" if chain else diff_id)
    return chain


def snapshots(node: Node) -> set[str]:
    """Names of the layers that a node has unpacked."""
    lines = run(node.ctr("snapshots", "list")).splitlines()[1:]
    return {fields[0] for line in lines if (fields := line.split())}


def names(node: Node) -> list[str]:
    """The names of the images that a node has."""
    lines = run(node.ctr("images", "list", "--quiet")).splitlines()
    return sorted(name for name in lines if name and not name.startswith("sha256:") and "@" not in name)


def used(node: Node) -> set[str]:
    """The names of the images that a node's containers were made from."""
    lines = run(node.ctr("containers", "list")).splitlines()[1:]
    return {fields[1] for line in lines if len(fields := line.split()) > 1}


def remove(node: Node, name: str) -> None:
    """Forgets an image, and frees what only it used."""
    run(node.ctr("images", "remove", "--sync", name))


def has(node: Node, name: str, digest: str) -> bool:
    """Whether a node has this very image under this name."""
    lines = [line.split() for line in run(node.ctr("images", "list", f"name=={name}")).splitlines()[1:]]
    return any(fields[0] == name and digest in fields for fields in lines)


def load(node: Node, image: storage.Image) -> None:
    """Makes an image of buildah's known to one node."""
    if has(node, image.name, image.digest):
        return
    with progress.step(f"load {image.name} into {node.name}"):
        chain, there = chain_ids(image.diff_ids), snapshots(node)
        made = [name for name in chain if name not in there]
        for position, name in enumerate(chain):
            if name in made:
                _link_layer(node, name, chain[position - 1] if position else "", image.layers[position])
        _import(node, image)
        for name in made:
            # From now on the image keeps it, so that removing the image frees it.
            run(node.ctr("snapshots", "label", name, f"{GC_ROOT}="))


def _link_layer(node: Node, name: str, below: str, source: Path) -> None:
    """Makes one snapshot out of a folder of buildah's."""
    work = f"localcluster-{name}"
    succeeds(node.ctr("snapshots", "remove", work))  # of an attempt that was cut off
    run(node.ctr("snapshots", "prepare", work, *([below] if below else [])))
    target = _writable(run(node.ctr("snapshots", "mounts", "/unused", work)))
    links.copy(source, target, node.run / "view")
    run(node.ctr("snapshots", "commit", name, work))


def _writable(mount_command: str) -> Path:
    """The folder that a prepared snapshot writes to, out of the command that would mount it."""
    words = mount_command.split()
    options = words[words.index("-o") + 1].split(",")
    upper = [option.partition("=")[2] for option in options if option.startswith("upperdir=")]
    # The lowest layer has nothing below it and is a plain bind mount.
    return Path(upper[0]) if upper else Path(words[words.index("-t") + 2])


def _import(node: Node, image: storage.Image) -> None:
    """Gives containerd the two documents; it finds every layer unpacked already."""
    buffer = io.BytesIO()
    media_type = json.loads(image.manifest).get("mediaType", archives.MANIFEST_TYPE)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archives.add(archive, "oci-layout", archives.dump({"imageLayoutVersion": "1.0.0"}))
        descriptor = archives.descriptor(media_type, image.manifest)
        archives.add(archive, "index.json", archives.index_json(descriptor, image.name))
        for document in (image.manifest, image.config):
            archives.add(archive, archives.blob_path(archives.sha256(document)), document)
    command = [str(word) for word in node.ctr("images", "import", "--local", "--discard-unpacked-layers", "-")]
    done = subprocess.run(command, input=buffer.getvalue(), capture_output=True, timeout=300, check=False)
    if done.returncode != 0:
        raise Fault(f"containerd refused {image.name}: {tail(done.stderr.decode() or done.stdout.decode())}")


def import_archive(node: Node, archive: Path, name: str) -> None:
    """Imports one of our own small archives, if this node has not this very image."""
    with tarfile.open(archive) as content:
        index = content.extractfile("index.json")
        assert index is not None
        manifest = json.loads(index.read())["manifests"][0]
    if not has(node, name, manifest["digest"]):
        with progress.step(f"load {name} into {node.name}"):
            run(node.ctr("images", "import", "--local", "--discard-unpacked-layers", str(archive)))
