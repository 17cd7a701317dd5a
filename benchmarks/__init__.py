"""Measurements of the operator and of rollbacks; see docs/benchmarks.md. Run from the repository's root."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))  # the control plane of the tests is the one that is measured
