"""Build the images of pib-videogen with docker or buildah: `python3 images/build.py [torch] [trainer] [serving] [operator]`.

Every image is tagged with a hash of all that goes into it; what is already there is not built again. Prints one line
`<image> <reference>` for each on standard output, progress on standard error. Needs nothing but the standard library.

For production a base image is named with its digest. `--development` builds on one that is known by its tag alone, and lets the
serving image take the Triton of a wheel, which has known holes; the server refuses to start it outside development mode.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "localhost/videogen"
BASE_IMAGES = {"docker": "python:3.11-slim-bookworm", "buildah": f"{PREFIX}/python-base:2"}
CERTIFICATES = Path("/etc/ssl/certs")
CACHE_IN_BUILD = "/var/cache/uv"
# May hold passwords: given to the steps that download as a secret mount, which no layer and no history keeps.
INDEX = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
INDEX_VARIABLE = "VIDEOGEN_BUILD_INDEX"
PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
NOTICES = "images/notices.py"
IGNORED = ("__pycache__", "build", ".mypy_cache", ".ruff_cache", ".pytest_cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image: its Dockerfile, what of the repository goes into it, and which image it stands on."""

    dockerfile: str
    inputs: tuple[str, ...]
    parent: str = ""  # another of IMAGES; without one the base image


IMAGES = {
    "torch": Image(dockerfile="images/torch/Dockerfile", inputs=("requirements/installer.lock", "requirements/torch.lock")),
    "trainer": Image(
        dockerfile="trainer-image/Dockerfile",
        inputs=("crds", "models", "serving-image", "trainer-image", "requirements/trainer.lock", NOTICES),
        parent="torch",
    ),
    "serving": Image(
        dockerfile="serving-image/Dockerfile",
        inputs=("crds", "models", "serving-image", "requirements/serving.lock", NOTICES),
        parent="torch",
    ),
    "operator": Image(
        dockerfile="Dockerfile", inputs=("crds", "operator", "requirements/build.lock", "requirements/operator.lock", NOTICES)
    ),
}


class BuildError(Exception):
    """Ends the command with one sentence."""


def files_of(root: Path, inputs: Sequence[str]) -> Iterator[Path]:
    """Every file of the inputs, sorted by path, without what tools leave behind."""
    for name in inputs:
        path = root / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            parts = file.relative_to(root).parts
            if file.is_file() and not any(part in IGNORED or part.endswith(".egg-info") for part in parts):
                yield file


def content_tag(root: Path, image: Image, parent: str, *, development: bool) -> str:
    """12 hex digits that change with the parent's reference, with any name, mode or byte of the inputs, and with the mode.

    So nothing that was built for development is found again, and pushed, without `--development`.
    """
    digest = hashlib.sha256(f"{parent}{' development' if development else ''}".encode())
    for file in files_of(root, (image.dockerfile, *image.inputs)):
        contents = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"\n{file.relative_to(root)} {bool(file.stat().st_mode & 0o100)} {contents}".encode())
    return digest.hexdigest()[:12]


def reference(name: str, base_image: str, root: Path = ROOT, *, development: bool = False) -> str:
    """The reference of an image as the working tree is now."""
    parent = parent_of(name, base_image, root, development=development)
    return f"{PREFIX}/{name}:{content_tag(root, IMAGES[name], parent, development=development)}"


def parent_of(name: str, base_image: str, root: Path = ROOT, *, development: bool = False) -> str:
    """The reference of the image that this one stands on."""
    return reference(IMAGES[name].parent, base_image, root, development=development) if IMAGES[name].parent else base_image


def base_of(engine: str, named: str | None, *, development: bool) -> str:
    """The base image; raises BuildError if it has no digest, unless that is allowed."""
    if development:
        return named or BASE_IMAGES[engine]
    if named and PINNED.fullmatch(named):
        return named
    found = f"--base-image is {named!r}, without a digest" if named else "--base-image is not given"
    raise BuildError(
        f"{found}; name the base image as <name>@sha256:<64 hex digits>, so that everybody builds on the same bytes, "
        "or give --development for images that are no production's"
    )


def detect_engine(runs: Callable[[Sequence[str]], bool]) -> str:
    """Docker where its daemon answers, else buildah; raises BuildError if there is neither."""
    if runs(["docker", "info"]):
        return "docker"
    if runs(["buildah", "--version"]):
        return "buildah"
    raise BuildError("no image builder: neither does a docker daemon answer nor is buildah installed; install one of them")


def build_command(engine: str, name: str, target: str, parent: str, environment: Mapping[str, str], *, development: bool) -> list[str]:
    """The command that builds one image, to be run with `build_environment`; the repository's root is its context."""
    image = IMAGES[name]
    arguments = {f"{'TORCH' if image.parent else 'BASE'}_IMAGE": parent}
    if name == "serving" and development:
        arguments["DEVELOPMENT"] = "1"
    command = ["docker", "build"]
    if engine == "buildah":
        command = ["buildah", "bud", "--isolation", "chroot", "--network", "host", "--http-proxy=false", "--layers"]
        command += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        if name == "torch":  # the wheels that the development environment has fetched already
            command += ["--volume", f"{uv_cache(environment)}:{CACHE_IN_BUILD}"]
            arguments["UV_OPTIONS"] = f"--cache-dir={CACHE_IN_BUILD}"
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    return [*command, "--secret", f"id=index,env={INDEX_VARIABLE}", "--file", image.dockerfile, "--tag", target, "."]


def build_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of that command: lines for a shell in one variable, out of which the engine makes the secret `index`."""
    lines = [f"export {key}={shlex.quote(environment[key])}\n" for key in INDEX if environment.get(key)]
    return {**environment, INDEX_VARIABLE: "".join(lines) or "# nothing\n", "DOCKER_BUILDKIT": "1"}


def uv_cache(environment: Mapping[str, str]) -> Path:
    """Where uv keeps its cache on this machine, as its documentation says."""
    if folder := environment.get("UV_CACHE_DIR"):
        return Path(folder)
    return Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache") / "uv"


def runs(command: Sequence[str]) -> bool:
    """Whether the command exists and ends well."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def exists(engine: str, target: str) -> bool:
    """Whether the engine has this image."""
    return runs([engine, "image", "inspect", target] if engine == "docker" else ["buildah", "inspect", "--type", "image", target])


def ensure(engine: str, name: str, base_image: str, environment: Mapping[str, str], *, development: bool) -> str:
    """Build the image, and what it stands on, unless it is there; returns its reference."""
    target, parent = (find(name, base_image, development=development) for find in (reference, parent_of))
    if exists(engine, target):
        say(f"{target} is up to date")
        return target
    if IMAGES[name].parent:
        ensure(engine, IMAGES[name].parent, base_image, environment, development=development)
    elif base_image == BASE_IMAGES["buildah"] and not exists(engine, base_image):
        raise BuildError(
            f"the base image {base_image} is missing; build it with `localcluster/localcluster build-base`, or name another by --base-image"
        )
    uv_cache(environment).mkdir(parents=True, exist_ok=True)
    say(f"building {target}{' (some minutes)' if name == 'torch' else ''}")
    started = time.monotonic()
    command = build_command(engine, name, target, parent, environment, development=development)
    built = subprocess.run(
        command, cwd=ROOT, env=build_environment(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if built.returncode:
        say(built.stdout.decode(errors="replace"))
        raise BuildError(f"{name} was not built; what failed stands above")
    say(f"built {target} in {time.monotonic() - started:.0f} s")
    return target


def push_commands(engine: str, target: str, pushed: str) -> list[list[str]]:
    """The commands that bring an image into a registry under the name `pushed`."""
    if engine == "buildah":
        return [["buildah", "push", "--quiet", target, f"docker://{pushed}"]]
    return [["docker", "tag", target, pushed], ["docker", "push", "--quiet", pushed]]


def push(engine: str, target: str, registry: str) -> str:
    """Push an image; returns its reference in the registry."""
    pushed = f"{registry.rstrip('/')}/{target.removeprefix(PREFIX + '/')}"
    for command in push_commands(engine, target, pushed):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines() or ["no word why"]
            raise BuildError(f"{pushed} was not pushed: {why[-1]}")
    say(f"pushed {pushed}")
    return pushed


def say(message: str) -> None:
    """One line of progress."""
    print(message, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", metavar="image", help=f"{', '.join(IMAGES)}; all but torch if none is named")
    parser.add_argument("--engine", choices=("docker", "buildah"), help="found out if not given")
    parser.add_argument("--base-image", metavar="NAME@sha256:DIGEST", help="with CPython 3.11 or newer, pip and libpython")
    parser.add_argument("--development", action="store_true", help="base images by tag, and Triton from the wheel: not for production")
    parser.add_argument("--tag", help="a second tag for every image, for example a version")
    parser.add_argument("--push", metavar="REGISTRY", help="push every image there, for example to registry.example.org/videos")
    parser.add_argument("--list", action="store_true", help="print the references and build nothing")
    options = parser.parse_args()
    if unknown := [name for name in options.images if name not in IMAGES]:
        parser.error(f"there is no image {unknown[0]!r}; there are {', '.join(IMAGES)}")
    return options


def main() -> int:
    """Run the command; 1 and one sentence on standard error if an image cannot be built."""
    options = arguments()
    try:
        engine = options.engine or detect_engine(runs)
        mode: bool = options.development
        base_image = base_of(engine, options.base_image, development=mode)
        for name in options.images or ("trainer", "serving", "operator"):
            if options.list:
                target = reference(name, base_image, development=mode)
            else:
                target = ensure(engine, name, base_image, os.environ, development=mode)
            if options.tag and not options.list:
                subprocess.run([engine, "tag", target, f"{PREFIX}/{name}:{options.tag}"], check=True)
            if options.push and not options.list:
                target = push(engine, f"{PREFIX}/{name}:{options.tag}" if options.tag else target, options.push)
            print(name, target, flush=True)
    except BuildError as error:
        say(f"images: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
