"""Third-party notices of an image: `python3 notices.py FILE [FOLDER ...]`, run inside it at the end of its build.

Writes name, version, licence and licence texts of every Python distribution in the import path, or in the folders, and the libraries
that their wheels bring along, with what the wheels' own bills of materials (PEP 770) say of them. Of Debian's packages it names the folder.
Needs nothing but the standard library.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path

HEAD = """Third-party notices

This image contains the software below, each under its own terms. It also contains Debian or Ubuntu packages, whose terms are in
/usr/share/doc/<package>/copyright, and whose common licences (GPL, LGPL, Apache and others) are in /usr/share/common-licenses.
"""
TRITON = Path("/opt/nvidia-pytriton")  # the wheel's Triton lies outside the import path
_TEXT = re.compile(r"^(licen[cs]e|copying|notice|copyright|third[-_]?party)", re.IGNORECASE)
_TEXT_SUFFIXES = {"", ".txt", ".md", ".rst", ".apache", ".bsd", ".mit"}
NOT_STATED = "not stated in its metadata"
_RULE = "=" * 100


def licence(distribution: Distribution) -> str:
    """What the metadata says: the SPDX expression, else the classifiers, else the first line of the free text."""
    stated = {field: distribution.metadata.get_all(field) or [] for field in ("License-Expression", "Classifier", "License")}
    classifiers = [one.rsplit(" :: ", 1)[-1] for one in stated["Classifier"] if one.startswith("License :: ")]
    free = [line for text in stated["License"] for line in text.strip().splitlines()[:1]]
    return ", ".join(stated["License-Expression"] or classifiers or free) or NOT_STATED


def texts(distribution: Distribution) -> Iterator[tuple[PackagePath, str]]:
    """The licence files of a distribution, each text once."""
    seen = set()
    for file in distribution.files or []:
        named = _TEXT.match(file.name) or "licenses" in file.parts
        if not named or file.suffix.lower() not in _TEXT_SUFFIXES or not Path(str(file.locate())).is_file():
            continue
        text = file.read_binary().decode("utf-8", errors="replace")
        if text not in seen:
            seen.add(text)
            yield file, text


def bundled(distribution: Distribution) -> list[str]:
    """Libraries of others in the wheel: components of its bills of materials, else the shared objects of its `.libs` folder."""
    files = distribution.files or []
    found = []
    for file in files:
        if "sboms" in file.parts and file.suffix == ".json":
            for component in json.loads(file.read_text()).get("components", []):
                terms = [one.get("expression") or one.get("license", {}).get("id", "") for one in component.get("licenses", [])]
                found.append(" ".join([component["name"], component.get("version", ""), *terms]).strip())
    return sorted({*found, *(file.name for file in files if file.parts[0].endswith(".libs"))})


def notices(folders: Sequence[str]) -> str:
    """The whole text, sorted by name."""
    found = {distribution.metadata["Name"]: distribution for distribution in distributions(path=list(folders))}
    parts = [HEAD]
    for name, distribution in sorted(found.items(), key=lambda item: item[0].lower()):
        parts.append(f"{_RULE}\n{name} {distribution.version}\nLicence: {licence(distribution)}")
        if libraries := bundled(distribution):
            parts.append("Contains: " + ", ".join(libraries))
        own = list(texts(distribution))
        parts += [f"--- {path}\n{text.rstrip()}" for path, text in own] or ["The package brings no licence text."]
    return "\n\n".join(parts) + "\n"


def main(target: Path, folders: Sequence[str]) -> None:
    """Write the notices of what is installed here."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(notices(folders or [*sys.path, str(TRITON)]), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
