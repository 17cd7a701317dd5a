"""Tags that follow the contents, commands for both engines, and what every Dockerfile must keep to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from videogen_testing.images import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one image of each kind."""
    for image in build.IMAGES.values():
        for name in (image.dockerfile, *image.inputs):
            path = tmp_path / name
            if (ROOT / name).is_dir():
                path /= "code.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name}\n")
    return tmp_path


def references(tree: Path) -> dict[str, str]:
    return {name: build.reference(name, "base:1", tree) for name in build.IMAGES}


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "nothing": (lambda tree: tree, set()),
    "the API": (lambda tree: (tree / "crds/code.py").write_text("x"), {"trainer", "serving", "operator"}),
    "the models": (lambda tree: (tree / "models/new.py").write_text(""), {"trainer", "serving"}),
    "the operator": (lambda tree: (tree / "operator/code.py").unlink(), {"operator"}),
    "a file's name": (lambda tree: (tree / "trainer-image/code.py").rename(tree / "trainer-image/other.py"), {"trainer"}),
    "a file's mode": (lambda tree: (tree / "serving-image/code.py").chmod(0o755), {"serving", "trainer"}),
    "torch's lock": (lambda tree: (tree / "requirements/torch.lock").write_text("x"), {"torch", "trainer", "serving"}),
    "the trainer's lock": (lambda tree: (tree / "requirements/trainer.lock").write_text("x"), {"trainer"}),
    "Triton's lock": (lambda tree: (tree / "requirements/serving.lock").write_text("x"), {"serving"}),
    "a Dockerfile": (lambda tree: (tree / "Dockerfile").write_text("x"), {"operator"}),
    "the tests": (lambda tree: (tree / "tests").mkdir(), set()),
    "what Python leaves behind": (lambda tree: leave(tree / "crds/__pycache__/code.pyc"), set()),
    "what setuptools leaves behind": (lambda tree: leave(tree / "crds/src/videogen_api.egg-info/PKG-INFO"), set()),
}


def leave(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("x")


@pytest.mark.parametrize("change, expected", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_gives_new_tags_to_the_images_that_have_it(tree: Path, change: Callable[[Path], object], expected: set[str]) -> None:
    before = references(tree)
    change(tree)
    after = references(tree)
    assert {name for name in before if before[name] != after[name]} == expected


def test_another_base_image_gives_new_tags_to_all(tree: Path) -> None:
    assert all(build.reference(name, "base:2", tree) != reference for name, reference in references(tree).items())


def test_docker_is_taken_where_its_daemon_answers() -> None:
    assert build.detect_engine(lambda _: True) == "docker"
    assert build.detect_engine(lambda command: command[0] == "buildah") == "buildah"
    with pytest.raises(build.BuildError, match="neither does a docker daemon answer nor is buildah installed; install one of them"):
        build.detect_engine(lambda _: False)


def test_the_torch_layer_uses_the_machines_package_cache_and_index() -> None:
    environment = {"HOME": "/houses/anna", "PIP_INDEX_URL": "https://index"}
    command = " ".join(build.build_command("buildah", "torch", "torch:1", "base:1", environment, development=False))
    assert "--volume /houses/anna/.cache/uv:/var/cache/uv" in command
    assert "--build-arg BASE_IMAGE=base:1 " in command
    assert command.endswith("--secret id=index,env=VIDEOGEN_BUILD_INDEX --file images/torch/Dockerfile --tag torch:1 .")


def test_an_image_on_the_torch_layer_names_it() -> None:
    command = build.build_command("docker", "serving", "serving:1", "torch:1", {}, development=False)
    assert command == [
        "docker",
        "build",
        "--build-arg",
        "TORCH_IMAGE=torch:1",
        "--secret",
        "id=index,env=VIDEOGEN_BUILD_INDEX",
        "--file",
        "serving-image/Dockerfile",
        "--tag",
        "serving:1",
        ".",
    ]


DIGEST = "sha256:" + "0f" * 32
BASES = {
    "production, by digest": (f"registry.example.org/python@{DIGEST}", False, f"registry.example.org/python@{DIGEST}"),
    "production, by tag and digest": (f"python:3.11@{DIGEST}", False, f"python:3.11@{DIGEST}"),
    "development, by tag": ("python:3.11", True, "python:3.11"),
    "development, without a name": (None, True, "python:3.11-slim-bookworm"),
}


@pytest.mark.parametrize("named, development, expected", BASES.values(), ids=BASES.keys())
def test_the_base_image(named: str | None, development: bool, expected: str) -> None:
    assert build.base_of("docker", named, development=development) == expected


REFUSED = {
    "none": (None, "--base-image is not given; name the base image as <name>@sha256:<64 hex digits>"),
    "a tag": ("python:3.11", "--base-image is 'python:3.11', without a digest"),
    "a short digest": ("python@sha256:0f0f", "without a digest"),
    "a digest alone": (f"@{DIGEST}", "without a digest"),
}


@pytest.mark.parametrize("named, says", REFUSED.values(), ids=REFUSED.keys())
def test_a_base_image_without_a_digest_needs_development_mode(named: str | None, says: str) -> None:
    with pytest.raises(build.BuildError) as caught:
        build.base_of("docker", named, development=False)
    assert says in str(caught.value) and "--development" in str(caught.value)


def test_what_was_built_for_development_is_not_found_again_for_production(tree: Path) -> None:
    for name, reference in references(tree).items():
        assert build.reference(name, "base:1", tree, development=True) != reference


def test_only_development_lets_the_serving_image_take_the_triton_of_the_wheel() -> None:
    commands = {mode: build.build_command("docker", "serving", "s:1", "t:1", {}, development=mode) for mode in (True, False)}
    assert "DEVELOPMENT=1" in commands[True]
    assert "DEVELOPMENT=1" not in commands[False]


PUSHES = {
    "buildah": [["buildah", "push", "--quiet", "localhost/videogen/trainer:1", "docker://r.example.org/team/trainer:1"]],
    "docker": [
        ["docker", "tag", "localhost/videogen/trainer:1", "r.example.org/team/trainer:1"],
        ["docker", "push", "--quiet", "r.example.org/team/trainer:1"],
    ],
}


@pytest.mark.parametrize("engine", PUSHES)
def test_a_registry_gets_an_image_under_its_short_name(engine: str) -> None:
    assert build.push_commands(engine, "localhost/videogen/trainer:1", "r.example.org/team/trainer:1") == PUSHES[engine]


CACHES = {
    "uv's own variable": ({"UV_CACHE_DIR": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
    "the desktop's variable": ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/uv"),
    "the home folder": ({"HOME": "/h"}, "/h/.cache/uv"),
}


@pytest.mark.parametrize("environment, folder", CACHES.values(), ids=CACHES.keys())
def test_where_the_package_cache_is(environment: dict[str, str], folder: str) -> None:
    assert build.uv_cache(environment) == Path(folder)


RUNNABLE = [image.dockerfile for name, image in build.IMAGES.items() if name != "torch"]


@pytest.mark.parametrize("dockerfile", RUNNABLE)
def test_a_container_starts_as_nobody_and_without_a_shell(dockerfile: str) -> None:
    lines = (ROOT / dockerfile).read_text().splitlines()
    assert "USER 65532:65532" in lines
    assert [line for line in lines if re.match(r"(ENTRYPOINT|CMD) (?!\[)", line)] == []
    assert sum(line.startswith("ENTRYPOINT [") for line in lines) == 1


@pytest.mark.parametrize("name", build.IMAGES)
def test_all_that_goes_into_an_image_is_in_the_build_context(name: str) -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / build.IMAGES[name].dockerfile).read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert {source.split("/")[0] for source in sources} <= sent
    inputs = build.IMAGES[name].inputs
    assert all(any(source == each or source.startswith(f"{each}/") for each in inputs) for source in sources)


@pytest.mark.parametrize("name", build.IMAGES)
def test_everything_installed_is_pinned_by_hash(name: str) -> None:
    for lock in (each for each in build.IMAGES[name].inputs if each.endswith(".lock")):
        pins = re.findall(r"^[a-z0-9][^\s]*==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", (ROOT / lock).read_text(), re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[a-z0-9].*$", (ROOT / lock).read_text(), re.MULTILINE)) > 0
