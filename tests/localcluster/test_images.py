import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from localcluster import archives, loading, storage
from localcluster.faults import Fault

NAME = "localhost/videogen/pause:1"


def static_image(folder: Path) -> archives.StaticImage:
    program = folder / "pause"
    program.write_bytes(b"\x7fELF of a kind")
    return archives.StaticImage(name=NAME, program=program, path="/bin/pause")


def blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as content:
        return {entry.name: (content.extractfile(entry) or io.BytesIO()).read() for entry in content}


def test_an_archive_is_complete_and_names_its_image(tmp_path: Path) -> None:
    archives.write(static_image(tmp_path), tmp_path / "a.tar")
    content = blobs(tmp_path / "a.tar")
    entry = json.loads(content["index.json"])["manifests"][0]
    assert entry["annotations"][archives.NAME_ANNOTATION] == NAME
    manifest = json.loads(content[archives.blob_path(entry["digest"])])
    for part in (manifest["config"], *manifest["layers"]):
        blob = content[archives.blob_path(part["digest"])]
        assert (archives.sha256(blob), len(blob)) == (part["digest"], part["size"])
    config = json.loads(content[archives.blob_path(manifest["config"]["digest"])])
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Env"] == ["PATH=/bin:/usr/bin:/bin"]


def test_the_same_program_gives_the_same_archive(tmp_path: Path) -> None:
    image = static_image(tmp_path)
    archives.write(image, tmp_path / "a.tar")
    archives.write(image, tmp_path / "b.tar")
    assert blobs(tmp_path / "a.tar") == blobs(tmp_path / "b.tar")


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    archives.write(static_image(tmp_path), tmp_path / "a.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "pause"]


def test_names_of_snapshots_follow_the_rule_of_oci() -> None:
    chain = loading.chain_ids(["sha256:a", "sha256:b", "sha256:c"])
    # printf 'sha256:a sha256:b' | sha256sum
    assert chain[:2] == ["sha256:a", "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8"]
    assert chain[2] == loading.chain_ids([chain[1], "sha256:c"])[1]
    assert loading.chain_ids([]) == []


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("videogen/trainer", "localhost/videogen/trainer:latest"),
        ("trainer:1", "localhost/trainer:1"),
        ("localhost/videogen/trainer:1", "localhost/videogen/trainer:1"),
        ("example.org/x/y", "example.org/x/y:latest"),
        ("host:5000/x", "host:5000/x:latest"),
    ],
)
def test_a_name_is_completed_as_buildah_does(name: str, full: str) -> None:
    assert storage.full_name(name) == full


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("mount -t bind /c/snapshots/1/fs /unused -o rw,rbind", "/c/snapshots/1/fs"),
        ("mount -t overlay overlay /unused -o index=off,workdir=/c/2/work,upperdir=/c/2/fs,lowerdir=/c/1/fs", "/c/2/fs"),
    ],
)
def test_the_folder_that_a_snapshot_writes_to_is_found(command: str, folder: str) -> None:
    assert loading._writable(command) == Path(folder)


def stored(root: Path, layers: int = 2) -> Path:
    """A storage of buildah's with one image of two layers."""
    identity = "c0ffee"
    config = json.dumps({"rootfs": {"diff_ids": ["sha256:low", "sha256:high"]}})
    folder = root / "overlay-images" / identity
    folder.mkdir(parents=True)
    (folder / "manifest").write_text("{}")
    (folder / ("=" + base64.b64encode(f"sha256:{identity}".encode()).decode())).write_text(config)
    image = {"id": identity, "names": [NAME], "layer": "high"}
    (root / "overlay-images" / "images.json").write_text(json.dumps([{"id": "unnamed", "layer": "x"}, image]))
    (root / "overlay-layers").mkdir()
    chain = [{"id": "high", "parent": "low"} if layers > 1 else {"id": "high"}, {"id": "low"}]
    (root / "overlay-layers" / "layers.json").write_text(json.dumps(chain))
    return root


def test_an_image_is_read_where_buildah_keeps_it(tmp_path: Path) -> None:
    image = storage.find(stored(tmp_path), NAME)
    assert image.diff_ids == ["sha256:low", "sha256:high"]
    assert image.layers == (tmp_path / "overlay/low/diff", tmp_path / "overlay/high/diff")
    assert image.digest == archives.sha256(b"{}")


def test_an_unknown_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="buildah has no image other:1"):
        storage.find(stored(tmp_path), "other:1")


def test_a_storage_without_any_image_is_no_accident(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="buildah has no image"):
        storage.find(tmp_path, NAME)


def test_a_storage_that_lacks_a_layer_is_told(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="2 layers and 1 of them stored"):
        storage.find(stored(tmp_path, layers=1), NAME)


def tar_of(path: Path, name: str, value: Any) -> Path:
    with tarfile.open(path, "w") as archive:
        archives.add(archive, name, json.dumps(value).encode())
    return path


def test_names_are_read_out_of_archives(tmp_path: Path) -> None:
    annotated = {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "x:1"}}, {}]}
    assert storage.names_in(tar_of(tmp_path / "oci.tar", "index.json", annotated)) == ["x:1"]
    assert storage.names_in(tar_of(tmp_path / "docker.tar", "manifest.json", [{"RepoTags": ["x:1", "y:2"]}])) == ["x:1", "y:2"]
    assert storage.names_in(tar_of(tmp_path / "none.tar", "something", {})) == []
    (tmp_path / "index.json").write_text(json.dumps(annotated))
    assert storage.names_in(tmp_path) == ["x:1"]
    (tmp_path / "text").write_text("no archive")
    assert storage.names_in(tmp_path / "text") == []
