"""Lets `python3 -m localcluster` work from the repository root, where nothing is installed.

There this folder itself is found as `localcluster` (a namespace package). The real package lies in src/; with
src/ on the path it wins over the namespace, so this file only starts Python again with that path.
"""

import os
import sys
from pathlib import Path

SRC = str(Path(__file__).resolve().parent / "src")
PATH = os.pathsep.join(filter(None, (SRC, os.environ.get("PYTHONPATH"))))
os.execve(sys.executable, [sys.executable, "-m", "localcluster", *sys.argv[1:]], os.environ | {"PYTHONPATH": PATH})
