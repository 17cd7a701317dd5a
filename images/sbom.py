"""Bills of materials: `python -m images.sbom FOLDER [<image>=<reference> ...]` writes `<image>.cdx.json`, CycloneDX 1.6.

The Python packages are those of the image's locks. The operating system's packages are read from the image, if docker or buildah has the
one that is named, or a development image of this working tree; else the bill says that they are unknown. One line of output an image.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from images import build, notices
from packageurl import PackageURL

UNKNOWN = "unknown: neither docker nor buildah has the image here"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_BUILDERS = ("installer.lock", "build.lock")  # of programs that build an image and do not stay in it


def locks(name: str) -> list[Path]:
    """The locks whose packages are in an image, those of the images below it first."""
    image = build.IMAGES[name]
    below = locks(image.parent) if image.parent else []
    return below + [build.ROOT / one for one in image.inputs if one.endswith(".lock") and not one.endswith(_BUILDERS)]


def pins(lock: Path) -> dict[str, str]:
    """Name and version of everything that a lock installs."""
    return dict(_PIN.findall(lock.read_text(encoding="utf-8")))


def python_packages(name: str) -> Iterator[Component]:
    """The image's Python packages; with licences where this environment has the same version."""
    here = {(one.metadata["Name"].lower().replace("_", "-"), one.version): one for one in distributions()}
    for package, version in sorted({pin for lock in locks(name) for pin in pins(lock).items()}):
        installed = here.get((package.lower().replace("_", "-"), version))
        yield component(PackageURL("pypi", name=package, version=version), installed)


def component(url: PackageURL, installed: Distribution | None = None) -> Component:
    """A library of a bill."""
    stated = notices.licence(installed) if installed else ""
    licences = [LicenseFactory().make_from_string(stated)] if stated and stated != notices.NOT_STATED else []
    return Component(type=ComponentType.LIBRARY, name=url.name, version=url.version, purl=url, bom_ref=str(url), licenses=licences)


def system_packages(release: str, status: str) -> Iterator[Component]:
    """The packages of /var/lib/dpkg/status, named after the distribution of /etc/os-release."""
    system = dict(line.replace('"', "").split("=", 1) for line in release.splitlines() if "=" in line)
    distribution = f"{system.get('ID', 'debian')}-{system.get('VERSION_ID', '')}".rstrip("-")
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            about = {"arch": fields["Architecture"], "distro": distribution}
            yield component(PackageURL("deb", system.get("ID", "debian"), fields["Package"], fields["Version"], about))


def read_from(engine: str, target: str, path: str) -> str:
    """A file of an image. Raises CalledProcessError."""
    if engine == "docker":
        return run("docker", "run", "--rm", "--network", "none", "--entrypoint", "cat", target, path)
    container = run("buildah", "from", "--pull-never", target).strip()
    try:
        return (Path(run("buildah", "mount", container).strip()) / path.lstrip("/")).read_text(encoding="utf-8")
    finally:
        run("buildah", "rm", container)


def run(*command: str) -> str:
    """Standard output of a command. Raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def built(name: str, target: str | None) -> tuple[str, str] | None:
    """The engine that has the image, this working tree's if none is named, and its reference; None if none has."""
    for engine in ("docker", "buildah"):
        wanted = target or build.reference(name, build.BASE_IMAGES[engine], development=True)
        if build.exists(engine, wanted):
            return engine, wanted
    return None


def bill(name: str, target: str | None = None) -> Bom:
    """The bill of one image."""
    subject = Component(type=ComponentType.CONTAINER, name=f"videogen-{name}", bom_ref=f"videogen-{name}")
    found, system = built(name, target), list[Component]()
    if found:
        engine, target = found
        system = list(system_packages(*(read_from(engine, target, path) for path in ("/etc/os-release", "/var/lib/dpkg/status"))))
        subject.properties.add(Property(name="videogen:image", value=target))
    else:
        subject.properties.add(Property(name="videogen:system-packages", value=UNKNOWN))
    bom = Bom(components=[*python_packages(name), *system])
    bom.metadata.component = subject
    bom.register_dependency(subject, bom.components)
    return bom


def main(folder: Path, named: Mapping[str, str]) -> None:
    """Write the bills of all images that are run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (name for name in build.IMAGES if name != "torch"):
        bom = bill(name, named.get(name))
        path = folder / f"{name}.cdx.json"
        JsonV1Dot6(bom).output_to_file(str(path), allow_overwrite=True, indent=2)
        kinds = [one.purl.type for one in bom.components if one.purl]
        system = kinds.count("deb") or UNKNOWN
        print(f"{path}: {kinds.count('pypi')} Python packages; packages of the system: {system}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(argument.split("=", 1) for argument in sys.argv[2:]))
