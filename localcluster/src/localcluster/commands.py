"""Running other programs: output captured, failure as one sentence."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster.faults import Fault

TAIL_LINES = 3


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 900,
) -> str:
    """Standard output of a program that must succeed."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise Fault(f"the program {argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Fault(f"{shown(argv)} did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        raise Fault(f"{shown(argv)} failed with exit code {done.returncode}: {tail(done.stderr or done.stdout)}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], timeout: float = 30) -> bool:
    """Whether a program ends with exit code 0; for questions, not for work."""
    try:
        run(argv, timeout=timeout)
    except Fault:
        return False
    return True


def shown(argv: Sequence[str | Path]) -> str:
    """A command short enough for one line."""
    text = " ".join(str(word) for word in argv)
    return text if len(text) <= 120 else text[:117] + "..."


def tail(text: str) -> str:
    """The last lines of an output on one line: the reason is nearly always there."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " | ".join(lines[-TAIL_LINES:]) or "no output"
