"""Which Triton may face clients: one without the holes that are known, unless this is a trial."""

from __future__ import annotations

import re
from pathlib import Path

# NVIDIA's container 26.07. Older ones can be ended, or made to run code, by one request (NVIDIA's bulletin 5687 and later ones).
MINIMUM, MINIMUM_CONTAINER = (2, 71), "26.07"
VERSION_FILE = "TRITON_VERSION"  # NVIDIA's images have it; the wheel has none
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.")


def check_triton(folder: Path, *, development: bool) -> None:
    """Whether the Triton in this folder may be started. Raises ValueError with what was found, what is accepted and what to do."""
    if development:
        return
    version = triton_version(folder)
    if version is None or version < MINIMUM:
        found = f"{version[0]}.{version[1]}" if version else "of an unknown version, such as that of the wheel nvidia-pytriton"
        raise ValueError(
            f"the Triton in {folder} is {found}; accepted is {MINIMUM[0]}.{MINIMUM[1]} (NVIDIA's container {MINIMUM_CONTAINER}) or newer,"
            " because older ones have known holes; build the serving image on NVIDIA's, or set the chart's serving.development for a trial"
        )


def triton_version(folder: Path) -> tuple[int, int] | None:
    """Major and minor version of the Triton in this folder; None if it does not say."""
    try:
        found = _VERSION.match((folder / VERSION_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return (int(found[1]), int(found[2])) if found else None
