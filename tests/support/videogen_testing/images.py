"""The programs of images/, a folder of commands and no package, as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
build, notices, sbom, audit = (importlib.import_module(f"images.{name}") for name in ("build", "notices", "sbom", "audit"))
