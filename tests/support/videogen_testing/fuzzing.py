"""One fuzz target: bytes that coverage guides go into one function until the time is up; atheris, which is libFuzzer for Python.

A target is a script `tests/fuzz/fuzz_<what>.py`. It imports what it attacks inside `instrumented`, and ends with `fuzz(one, seeds)`. What
`one` raises is a finding, so it catches only the exceptions that the attacked code declares; a hang (`HANG_SECONDS` for one input) and
growth (`GROWTH_MB` above the memory of the start) are findings too. The script then ends with another exit code than 0 and names the file
that has the input; with that file as its argument it runs this input alone. FUZZ_SECONDS is the time of a target, 600 by default.

What was found interesting is kept in `build/fuzz/corpus`, and the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import atheris

SECONDS = 600
HANG_SECONDS = 20
GROWTH_MB = 512
LONGEST = 16384  # bytes of an input
FOLDER = Path(__file__).parents[3] / "build" / "fuzz"


def instrumented(*modules: str) -> AbstractContextManager[None]:
    """What is imported for the first time in this context, and is or lies below one of these modules, guides the search."""
    context: AbstractContextManager[None] = atheris.instrument_imports(include=list(modules))
    return context


def scratch() -> Path:
    """A folder in memory, for targets that need files; whoever writes into it replaces the same files in every call."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))


def fuzz(one: Callable[[bytes], None], seeds: Iterable[bytes], words: Iterable[bytes] = ()) -> None:
    """Run the target and end the process: 0 if nothing was found.

    Seeds are inputs that the code accepts, or nearly; words are put into inputs as they are.
    """
    name = Path(sys.argv[0]).stem
    corpus = FOLDER / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    settings = [
        f"-max_total_time={os.environ.get('FUZZ_SECONDS', SECONDS)}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={resident + GROWTH_MB}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={FOLDER / name}-",
        f"-dict={FOLDER / name}.dict",
        "-print_final_stats=1",
    ]
    (FOLDER / f"{name}.dict").write_text("".join('"{}"\n'.format("".join(f"\\x{byte:02x}" for byte in word)) for word in words))
    inputs = sys.argv[1:] or [str(corpus)]
    atheris.Setup([sys.argv[0], *settings, *inputs], one)
    atheris.Fuzz()
