import asyncio
import urllib.error
import urllib.request

import pytest

from videogen_operator.inbound.endpoints import Renderings, metrics, probes
from videogen_operator.inbound.listening import serve
from videogen_operator.watchdog import DeafError, Watchdog
from videogen_testing.patience import HANGS


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


def test_a_list_that_takes_longer_than_all_periods_ends_nothing_while_its_pages_come() -> None:
    clock = Clock()
    dog = Watchdog(60, lambda: True, clock)
    dog.leads()
    for clock.now in range(30, 1200, 30):
        dog.tick([])
        dog.heard()
    assert dog.dead() == ""
    clock.now = 1170 + 181
    with pytest.raises(DeafError):
        dog.tick([])


def test_lists_of_which_each_fails_end_the_process_although_some_pages_come() -> None:
    clock = Clock()
    dog = Watchdog(60, lambda: True, clock)
    dog.leads()
    for clock.now in (60, 120):
        dog.heard()
        dog.failed()
        dog.tick([])
    clock.now = 181
    dog.heard()
    dog.tick([])
    dog.failed()
    with pytest.raises(DeafError):
        dog.tick([])


def test_probes_say_why() -> None:
    clock, holding = Clock(), [True]
    dog = Watchdog(60, lambda: holding[0], clock)
    dog.leads()
    assert "not been listed" in dog.unready()
    assert dog.dead() == ""
    dog.listed()
    assert dog.unready() == ""
    holding[0] = False
    assert dog.idle() == "the Lease is not held"
    assert dog.dead() == ""
    clock.now = 31
    assert dog.dead() == dog.unready() == dog.idle() == "the event loop has stalled"


def test_lists_are_due_from_the_moment_the_lease_is_won() -> None:
    clock = Clock()
    dog = Watchdog(60, lambda: True, clock)
    clock.now = 100_000
    dog.leads()
    clock.now = 100_179
    dog.tick([])
    clock.now = 100_181
    with pytest.raises(DeafError, match="180 s"):
        dog.tick([])


async def test_the_endpoints_answer_503_with_the_reason() -> None:
    clock = Clock()
    dog = Watchdog(60, lambda: True, clock)
    servers = [await serve(probes(dog), "127.0.0.1", 0), await serve(metrics(Renderings()), "127.0.0.1", 0)]
    of_probes, of_metrics = (f"http://127.0.0.1:{server.addresses[0][1]}" for server in servers)

    def ask(url: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=HANGS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    async def get(url: str) -> tuple[int, str]:
        return await asyncio.to_thread(ask, url)

    assert await get(of_probes + "/healthz") == (200, "ok")
    assert (await get(of_probes + "/readyz"))[0] == 503
    dog.listed()
    assert await get(of_probes + "/readyz") == (200, "ok")
    assert await get(of_probes + "/leaderz") == (200, "ok")
    clock.now = 1000
    assert (await get(of_probes + "/healthz"))[0] == 503
    assert "videogen_reconcile_total" in (await get(of_metrics + "/metrics"))[1]
    for server in servers:
        await server.cleanup()
