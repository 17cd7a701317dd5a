"""`python -m benchmarks.load.trainers PORT FILE`: live runs' trainers, each of which reports every 5 s over a new connection.

The file has a token a line. A process of its own, so that its work is not counted as the operator's. It ends with its standard
input, and prints how many reports had which answer; a line `count` asks for that at any time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from videogen_trainer.progress import trainer_status

SECONDS = 5.0
STEPS = 100_000
SECONDS_OF_A_STEP = 0.5
ADDRESSES = 250


def main(arguments: list[str]) -> int:
    """Report until the standard input ends."""
    port, file = int(arguments[0]), Path(arguments[1])
    asyncio.run(report_all(port, file.read_text(encoding="ascii").split()))
    return 0


async def report_all(port: int, tokens: list[str]) -> None:
    """All trainers, evenly over the interval."""
    answers: Counter[str] = Counter()
    sources = itertools.cycle(f"127.1.0.{number + 1}" for number in range(ADDRESSES))
    tasks = [
        asyncio.create_task(trainer(port, token, next(sources), number * SECONDS / len(tokens), answers))
        for number, token in enumerate(tokens)
    ]
    while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        print(json.dumps(answers), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def trainer(port: int, token: str, source: str, first: float, answers: Counter[str]) -> None:
    """One of them, as `videogen_trainer.progress` posts it."""
    begun = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, begun + first + number * SECONDS - time.monotonic()))
        elapsed = time.monotonic() - begun + 1
        step = 1000 + int(elapsed / SECONDS_OF_A_STEP)
        told = {"step": step, "steps": STEPS, "loss": f"{0.1 + 1 / step:.4g}", "gradientNorm": "0.213", "learningRate": "0.0001"}
        told |= {"clipsPerSecond": "31.2", "stepSeconds": "0.513", "goodput": "0.971", "checkpointStep": step // 100 * 100}
        status = trainer_status(step, STEPS, told, elapsed=elapsed, since=1000, now=datetime.now(UTC))
        answers[await _post(port, token, source, json.dumps(status).encode())] += 1


async def _post(port: int, token: str, source: str, body: bytes) -> str:
    head = f"POST /v1/progress HTTP/1.1\r\nAccept-Encoding: identity\r\nContent-Length: {len(body)}\r\nHost: 127.0.0.1:{port}\r\n"
    head += f"User-Agent: Python-urllib\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(5.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            try:
                writer.write(head.encode() + body)
                return (await reader.read()).split()[1].decode()
            finally:
                writer.close()
    except (OSError, TimeoutError, IndexError) as error:
        return type(error).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
