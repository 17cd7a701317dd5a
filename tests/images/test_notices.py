"""Who passes an image on passes on what others wrote, so their terms are in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videogen_testing.images import build, notices

ROOT = Path(__file__).resolve().parents[2]


def install(folder: Path, name: str, metadata: str, files: dict[str, str]) -> None:
    """A distribution as an installer leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


LICENCES = {
    "an SPDX expression": ("License-Expression: MIT\nLicense: something else\n", "MIT"),
    "classifiers": ("Classifier: License :: OSI Approved :: BSD License\nLicense: long text\n", "BSD License"),
    "free text": ("License: NVIDIA Proprietary Software\n", "NVIDIA Proprietary Software"),
    "nothing": ("", "not stated in its metadata"),
}


@pytest.mark.parametrize("metadata, expected", LICENCES.values(), ids=LICENCES.keys())
def test_the_licence_is_what_the_metadata_says(tmp_path: Path, metadata: str, expected: str) -> None:
    install(tmp_path, "one", metadata, {})
    assert f"one 1.0\nLicence: {expected}\n" in notices.notices([str(tmp_path)])


def test_licence_texts_and_libraries_of_others_are_in_it(tmp_path: Path) -> None:
    bill = {"components": [{"name": "libimagequant", "version": "4.4", "licenses": [{"license": {"id": "GPL-3.0-or-later"}}]}]}
    files = {
        "one-1.0.dist-info/licenses/LICENSE": "the terms of one",
        "one/vendored/COPYING": "the terms of what one brings along",
        "one/licence.py": "no text",
        "one.libs/libx264-abc.so.165": "",
        "one-1.0.dist-info/sboms/auditwheel.cdx.json": json.dumps(bill),
    }
    install(tmp_path, "one", "License-Expression: MIT\n", files)
    install(tmp_path, "two", "License-Expression: MIT\n", {"two.py": ""})
    written = notices.notices([str(tmp_path)])
    assert "the terms of one\n" in written
    assert "the terms of what one brings along\n" in written
    assert "no text" not in written
    assert "Contains: libimagequant 4.4 GPL-3.0-or-later, libx264-abc.so.165\n" in written
    assert written.index("two 1.0") > written.index("one 1.0")
    assert written.count("The package brings no licence text.") == 1


@pytest.mark.parametrize("name", [name for name in build.IMAGES if name != "torch"])
def test_every_image_that_is_run_has_them(name: str) -> None:
    lines = (ROOT / build.IMAGES[name].dockerfile).read_text().splitlines()
    written = lines.index("RUN python3 /opt/videogen/notices.py /usr/share/doc/videogen/NOTICES")
    assert all("install" not in line for line in lines[written:])
