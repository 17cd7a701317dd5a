import asyncio
import json
import urllib.error
import urllib.request

import pytest

from videogen_operator.endpoints import application, serve
from videogen_operator.watchdog import DeafError, Watchdog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


RUNS, PODS = "watcher for trainingruns.v1alpha1.videogen.pib.gov.in@x", "watcher for pods.v1@x"


def test_a_watcher_that_ended_ends_the_process() -> None:
    dog = Watchdog(60, lambda: True, Clock())
    dog.tick([RUNS, "another task"])
    dog.tick([RUNS, PODS])
    with pytest.raises(DeafError, match="watcher for trainingruns"):
        dog.tick([PODS, "another task"])


def test_lists_that_fail_for_three_periods_end_the_process() -> None:
    clock = Clock()
    dog = Watchdog(60, lambda: True, clock)
    clock.now = 100
    dog.listed()
    clock.now = 279
    dog.tick([])
    assert dog.dead() == ""
    clock.now = 281
    assert "cannot be listed" in dog.dead()
    with pytest.raises(DeafError, match="180 s"):
        dog.tick([])


def test_probes_say_why() -> None:
    clock, holding = Clock(), [True]
    dog = Watchdog(60, lambda: holding[0], clock)
    assert "not been listed" in dog.unready()
    assert dog.dead() == ""
    dog.listed()
    assert dog.unready() == ""
    holding[0] = False
    assert dog.unready() == "the Lease is not held"
    assert dog.dead() == ""
    clock.now = 31
    assert dog.dead() == "the event loop has stalled"


async def test_the_endpoints_answer_503_with_the_reason() -> None:
    clock = Clock()
    dog = Watchdog(60, lambda: True, clock)
    runner = await serve(application(dog), "127.0.0.1", 0)
    root = f"http://127.0.0.1:{runner.addresses[0][1]}"

    def ask(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(root + path, timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    async def get(path: str) -> tuple[int, str]:
        return await asyncio.to_thread(ask, path)

    assert await get("/healthz") == (200, "ok")
    assert (await get("/readyz"))[0] == 503
    dog.listed()
    assert await get("/readyz") == (200, "ok")
    clock.now = 1000
    assert (await get("/healthz"))[0] == 503
    assert "videogen_reconcile_total" in json.dumps((await get("/metrics"))[1])
    await runner.cleanup()
