"""Reading images where buildah keeps them: its manifest, its configuration and its unpacked layers.

The format is that of containers/storage with the overlay driver, shared by buildah and podman. It is read and never
written here.
"""

import base64
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import archives
from localcluster.commands import run, succeeds
from localcluster.faults import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image: two small documents, and a folder of files for each layer, the lowest first."""

    name: str
    manifest: bytes
    config: bytes
    layers: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """What identifies the image."""
        return archives.sha256(self.manifest)

    @property
    def diff_ids(self) -> list[str]:
        """The digests of the layers' contents, the lowest first."""
        return list(json.loads(self.config)["rootfs"]["diff_ids"])


def full_name(name: str) -> str:
    """The name that pods use: with a registry and a tag, as buildah and the kubelet complete it."""
    first, slash, _ = name.partition("/")
    named = name if slash and ("." in first or ":" in first or first == "localhost") else f"localhost/{name}"
    return named if ":" in named.rsplit("/", 1)[-1] else f"{named}:latest"


def root() -> Path:
    """Where buildah keeps everything. vfs would copy each layer into the next: gigabytes each time."""
    store: dict[str, Any] = json.loads(run(["buildah", "info"]))["store"]
    if store["GraphDriverName"] != "overlay":
        raise Fault(
            f"buildah stores images by {store['GraphDriverName']}; "
            'put driver = "overlay" into the [storage] section of /etc/containers/storage.conf'
        )
    return Path(store["GraphRoot"])


def take(path: Path) -> list[str]:
    """Brings an archive (as of `docker save`) or an OCI folder into buildah's storage; the names of its images."""
    names = names_in(path)
    if not names:
        raise Fault(f"{path} holds no image with a name")
    for transport in ("oci",) if path.is_dir() else ("docker-archive", "oci-archive"):
        found = [f"{transport}:{path}:{name}" for name in names]
        if all(succeeds(["buildah", "pull", "--quiet", image], timeout=1800) for image in found):
            return names
    raise Fault(f"buildah cannot read {path}")


def names_in(path: Path) -> list[str]:
    """The names of the images in an archive or OCI folder; none if it is neither."""
    docker, index = (_document(path, name) for name in ("manifest.json", "index.json"))
    if docker is not None:
        return [name for image in docker for name in image.get("RepoTags") or []]
    annotations = [image.get("annotations", {}) for image in (index or {}).get("manifests", [])]
    return [entry["org.opencontainers.image.ref.name"] for entry in annotations if "org.opencontainers.image.ref.name" in entry]


def _document(path: Path, name: str) -> Any:
    try:
        if path.is_dir():
            return json.loads((path / name).read_text())
        with tarfile.open(path) as archive:
            member = archive.extractfile(name)
            return json.loads(member.read()) if member else None
    except (KeyError, FileNotFoundError, tarfile.ReadError):
        return None


def find(storage: Path, name: str) -> Image:
    """Reads one image."""
    entries: list[dict[str, Any]] = _table(storage / "overlay-images" / "images.json")
    found = [entry for entry in entries if name in (entry.get("names") or [])]
    if not found:
        raise Fault(f"buildah has no image {name}; build it first, `buildah images` lists what there is")
    identity, folder = found[-1]["id"], storage / "overlay-images" / found[-1]["id"]
    config = (folder / _big_data(f"sha256:{identity}")).read_bytes()
    manifest = (folder / "manifest").read_bytes()
    image = Image(name=name, manifest=manifest, config=config, layers=_layers(storage, found[-1]["layer"]))
    if len(image.layers) != len(image.diff_ids):
        raise Fault(f"buildah's image {name} has {len(image.diff_ids)} layers and {len(image.layers)} of them stored")
    return image


def names(storage: Path) -> set[str]:
    """The names of all images."""
    return {name for entry in _table(storage / "overlay-images" / "images.json") for name in entry.get("names") or []}


def _layers(storage: Path, top: str) -> tuple[Path, ...]:
    """The folders of a layer and all below it, the lowest first."""
    parents = {layer["id"]: layer.get("parent", "") for layer in _table(storage / "overlay-layers" / "layers.json")}
    chain: list[Path] = []
    identity = top
    while identity:
        chain.append(storage / "overlay" / identity / "diff")
        identity = parents[identity]
    return tuple(reversed(chain))


def _table(file: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(file.read_text()))
    except FileNotFoundError:
        return []


def _big_data(key: str) -> str:
    """The file name of a document whose key has characters that the storage does not put into names."""
    return "=" + base64.b64encode(key.encode()).decode()
