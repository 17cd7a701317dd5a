"""`python -m benchmarks.profiled FILE`: the operator under cProfile. It ends by os._exit, so the profile is written right before."""

from __future__ import annotations

import cProfile
import os
import sys
from typing import NoReturn

from videogen_operator.main import main


def run(file: str) -> None:
    """Run the operator; write the profile when it ends."""
    profile, leave = cProfile.Profile(), os._exit

    def write_and_leave(code: int) -> NoReturn:
        profile.disable()
        profile.dump_stats(file)
        leave(code)

    os._exit = write_and_leave  # type: ignore[assignment]
    sys.argv[1:] = []  # the operator's own command line
    profile.runcall(main)


if __name__ == "__main__":
    run(sys.argv[1])
