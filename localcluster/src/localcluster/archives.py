"""Small container images written without a build tool: one layer of given files, as an OCI archive.

Enough for a static Go program on an empty image. Every byte depends on the inputs only, so the same program gives the
same digest and an unchanged image is recognised.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
# containerd takes the full name of an image from here.
NAME_ANNOTATION = "io.containerd.image.name"
NONROOT = 65532


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticImage:
    """A program and how it is started."""

    name: str
    program: Path
    path: str  # where the program lies in the image
    user: int = NONROOT


def write(image: StaticImage, target: Path) -> None:
    """Writes the archive, complete or not at all."""
    layer = layer_bytes(image)
    layer_digest = sha256(layer)
    config = dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "User": f"{image.user}:{image.user}",
                "Env": [f"PATH={PurePosixPath(image.path).parent}:/usr/bin:/bin"],
                "Entrypoint": [image.path],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            "history": [{"created_by": "localcluster"}],
        }
    )
    manifest = dump(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, config),
            "layers": [descriptor(LAYER_TYPE, layer)],
        }
    )
    beside = target.with_name(f".{target.name}")
    with tarfile.open(beside, "w") as archive:
        add(archive, "oci-layout", dump({"imageLayoutVersion": "1.0.0"}))
        add(archive, "index.json", index_json(descriptor(MANIFEST_TYPE, manifest), image.name))
        for blob in (layer, config, manifest):
            add(archive, blob_path(sha256(blob)), blob)
    beside.replace(target)


def layer_bytes(image: StaticImage) -> bytes:
    """The one layer: the program, a /tmp, and the users that file owners are shown as."""
    buffer = io.BytesIO()
    users = f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/:/sbin/nologin\n"
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        layer.addfile(temporary)
        add(layer, "etc/passwd", users.encode())
        add(layer, image.path.lstrip("/"), image.program.read_bytes(), 0o755)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    """Adds a file without owner and time, which would change the digest."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def index_json(manifest: dict[str, Any], name: str) -> bytes:
    """An index of one image, under its full name."""
    named = manifest | {"annotations": {NAME_ANNOTATION: name, "org.opencontainers.image.ref.name": name}}
    return dump({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [named]})


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """How one blob points to another."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def blob_path(digest: str) -> str:
    """Where a blob lies in a layout: blobs/sha256/<hex>."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def sha256(data: bytes) -> str:
    """A digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def dump(value: Any) -> bytes:
    """JSON without whitespace or order that could change the digest."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
