"""`python -m benchmarks.press`: clients that send half of something, from many loopback addresses, to one operator for some time.

Each connection that is closed is opened again after some seconds. It aims at 127.0.0.1 alone, from 127.1.0.0/16, and ends by
itself; `benchmarks.attack` starts it as a process of its own, so that its work is not counted as the operator's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import resource
import sys
from collections import Counter
from contextlib import suppress

HALF_HEADER = b"POST /v1/alerts HTTP/1.1\r\nHost: operator\r\nX-Padding: "
REPORT_BYTES = 64 * 1024
ADDRESSES = 250
AGAIN_SECONDS = 10.0
TOLD: Counter[str] = Counter()


def main(arguments: list[str]) -> int:
    """Press until the time is over or the standard input ends, then print what was opened and answered."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.press", description=__doc__)
    for name in ("inbox", "metrics", "reports", "headers", "scrapes"):
        parser.add_argument(f"--{name}", type=int, required=True, help="a port, or how many clients")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    token = os.environ["PRESS_TOKEN"]
    asyncio.run(press(options, token))
    print(", ".join(f"{count} {what}" for what, count in sorted(TOLD.items())), flush=True)
    return 0


async def press(options: argparse.Namespace, token: str) -> None:
    """All clients at once; each kind begins within its first seconds."""
    body = f"POST /v1/progress HTTP/1.1\r\nHost: operator\r\nAuthorization: Bearer {token}\r\nContent-Length: {REPORT_BYTES}\r\n\r\n"
    half_report = body.encode() + b"{" * (REPORT_BYTES // 2)
    scrape = b"GET /metrics HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n"
    kinds = [
        ("unfinished reports", options.reports, options.inbox, half_report, AGAIN_SECONDS),
        ("half headers", options.headers, options.inbox, HALF_HEADER, AGAIN_SECONDS),
        ("scrapes", options.scrapes, options.metrics, scrape, 0.0),
    ]
    sources = itertools.cycle(f"127.1.0.{number + 1}" for number in range(ADDRESSES))
    tasks = [
        asyncio.create_task(client(what, port, data, next(sources), number * AGAIN_SECONDS / count, again))
        for what, count, port, data, again in kinds
        for number in range(count)
    ]
    with suppress(TimeoutError):
        async with asyncio.timeout(options.seconds):
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def client(what: str, port: int, data: bytes, source: str, first: float, again: float) -> None:
    """Send, wait for the end of the connection, and begin anew."""
    await asyncio.sleep(first)
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            TOLD[f"{what} opened"] += 1
            try:
                writer.write(data)
                answer = await reader.read()
                TOLD[f"{what} answered {answer.split()[1].decode()}" if answer else f"{what} closed"] += 1
            finally:
                writer.close()
        except OSError:
            TOLD[f"{what} refused"] += 1
        await asyncio.sleep(again)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
