"""`python -m benchmarks.goodput`: one training under random SIGKILLs of its processes: how much of the time was worth it.

Times between kills are exponential with a mean of 30 checkpoint intervals, from a seed. After each the training is started again at
once, as the operator would. Everything is the real trainer's: its processes, its checkpoints, what it tells of its progress.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.figures import Figure, circumstances, table
from benchmarks.training import fill, middle, run_ranks, training_job, write_job
from videogen_api.job import ENV_SERVER_TOKEN, ENV_SERVER_URL, ExitCode, Job

KILL_EVERY = 30  # checkpoint intervals, in the mean
GOODPUT = 0.90  # an aim
_POLL_SECONDS = 0.05


@dataclass(slots=True)
class Attempt:
    """What is known of one attempt: the newest metrics that it told, and whether it was killed."""

    metrics: dict[str, float] = field(default_factory=dict)
    killed: bool = False


def main(arguments: list[str]) -> int:
    """0 if every aim is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goodput", description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="of undisturbed training (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between checkpoints (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the kills (default: %(default)s)")
    options = parser.parse_args(arguments)
    print(circumstances(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        fill(storage)
        step = step_seconds(storage, options.processes)
        every, steps = max(1, round(options.interval / step)), round(60 * options.minutes / step)
        job = training_job("goodput", batch=8, steps=steps, every=every, processes=options.processes)
        print(f"{steps} steps of about {step:.3f} s, a checkpoint every {every}", flush=True)
        begun = time.monotonic()
        attempts = trained(job, storage, random.Random(options.seed), KILL_EVERY * every * step)
        figures = list(figures_of(attempts, time.monotonic() - begun, every))
    print(table(figures))
    return 1 if any(figure.verdict == "MISSED" for figure in figures) else 0


def step_seconds(storage: Path, processes: int) -> float:
    """The median of a short training's steps."""
    job = training_job("calibration", batch=8, steps=20, every=20, processes=processes)
    ends = run_ranks("ours", job, storage)[0]["ends"][3:]
    return middle([after - before for before, after in itertools.pairwise(ends)])


def trained(job: Job, storage: Path, chance: random.Random, mean_seconds: float) -> list[Attempt]:
    """Train to the end, whatever it takes. Raises RuntimeError if an attempt fails that was not killed."""
    path, attempts = write_job(job, storage / "job.json"), [Attempt()]
    with progress_server(attempts) as url:
        while not finished(path, storage, url, attempts[-1], chance, mean_seconds):
            print(f"attempt {len(attempts)}: killed, had told {attempts[-1].metrics}", flush=True)
            attempts.append(Attempt())
    return attempts


def finished(path: Path, storage: Path, url: str, attempt: Attempt, chance: random.Random, mean_seconds: float) -> bool:
    """Run one attempt and kill one of its processes at a random time -> whether it came to its end before."""
    token, log = storage / "token", storage / "trainer.log"
    token.write_text("token", encoding="utf-8")
    told = {ENV_SERVER_URL: url, ENV_SERVER_TOKEN: str(token), "VIDEOGEN_TERMINATION_MESSAGE_PATH": str(storage / "termination")}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "videogen_trainer", "--job", str(path), "--storage", str(storage)]
        trainer = subprocess.Popen(command, env=os.environ | told | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + chance.expovariate(1 / mean_seconds)
            while trainer.poll() is None:
                if time.monotonic() > deadline and not attempt.killed:
                    os.kill(victim(trainer.pid, chance), signal.SIGKILL)
                    attempt.killed = True
                time.sleep(_POLL_SECONDS)
        finally:
            trainer.kill()
            code = trainer.wait()
    if code != ExitCode.SUCCEEDED and not attempt.killed:
        raise RuntimeError(f"the trainer ended with {code}: {log.read_text(encoding='utf-8')[-1500:]}")
    return code == ExitCode.SUCCEEDED


def victim(agent: int, chance: random.Random) -> int:
    """One of the processes that the agent has started; the agent itself while there is none, or if it works alone."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text(encoding="ascii").split()
    return int(chance.choice(children)) if children else agent


@contextmanager
def progress_server(attempts: list[Attempt]) -> Iterator[str]:
    """Takes what trainers tell, by Kubeflow Trainer's protocol, and gives it to the newest attempt -> its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = body["trainerStatus"]["metrics"]
            attempts[-1].metrics = {metric["name"]: float(metric["value"]) for metric in told}
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def figures_of(attempts: list[Attempt], wall: float, every: int) -> Iterator[Figure]:
    """The figures of a training of `wall` seconds in all. An aim is a bound, so goodput is given by what it lacks."""

    def total(name: str) -> float:
        return sum(attempt.metrics.get(name, 0.0) for attempt in attempts)

    kills = sum(attempt.killed for attempt in attempts)
    lost = [attempt.metrics.get("repeatedSteps", 0.0) for attempt in attempts[1:]]
    yield Figure("goodput: productive of all seconds", total("productiveSeconds") / wall)
    yield Figure("of all seconds, not productive", 1 - total("productiveSeconds") / wall, "", round(1 - GOODPUT, 2))
    yield Figure("waiting for data, of all seconds", total("dataWaitSeconds") / wall)
    yield Figure("pauses for checkpoints, of all seconds", total("checkpointPauseSeconds") / wall)
    yield Figure("kills", kills)
    if kills:
        yield Figure(f"steps lost by a kill, of an interval of {every}: mean", sum(lost) / kills / every, "", 1.0)
        yield Figure("steps lost by a kill, of an interval: most", max(lost) / every)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
