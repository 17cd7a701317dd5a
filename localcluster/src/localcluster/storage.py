"""Reading images where buildah keeps them: its manifest, its configuration and its unpacked layers.

The format is that of containers/storage with the overlay driver, shared by buildah and podman. It is read and never
written here.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import archives
from localcluster.commands import run
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
            f'buildah stores images by {store["GraphDriverName"]}; '
            'put driver = "overlay" into the [storage] section of /etc/containers/storage.conf'
        )
    return Path(store["GraphRoot"])


def find(storage: Path, name: str) -> Image:
    """Reads one image."""
    entries: list[dict[str, Any]] = _table(storage / "overlay-images" / "images.json")
    found = [entry for entry in entries if name in entry.get("names", [])]
    if not found:
        raise Fault(f"buildah has no image {name}; build it first, `buildah images` lists what there is")
    identity, folder = found[-1]["id"], storage / "overlay-images" / found[-1]["id"]
    config = (folder / _big_data(f"sha256:{identity}")).read_bytes()
    manifest = (folder / "manifest").read_bytes()
    image = Image(name=name, manifest=manifest, config=config, layers=_layers(storage, found[-1]["layer"]))
    if len(image.layers) != len(image.diff_ids):
        raise Fault(f"buildah's image {name} has {len(image.diff_ids)} layers and {len(image.layers)} of them stored")
    return image


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
