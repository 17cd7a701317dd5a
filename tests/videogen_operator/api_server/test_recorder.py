"""Events are sent in their order, beside what is being decided, and not lost by an orderly end."""

import asyncio
from datetime import UTC, datetime

import pytest

from videogen_operator.api_server import recorder
from videogen_operator.api_server.recorder import Recorder
from videogen_operator.plan import Manifest, Note
from videogen_testing.patience import HANGS

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


class Server:
    """Takes notes while it is open; refuses those about `refused`."""

    def __init__(self, refused: str = "") -> None:
        self.open, self.refused, self.sent = asyncio.Event(), refused, list[str]()
        self._news = asyncio.Condition()

    async def heard(self, reason: str) -> None:
        """Return once it was sent."""
        async with self._news:
            await self._news.wait_for(lambda: reason in self.sent)

    async def send(self, event: Manifest) -> None:
        assert event["eventTime"] == "2026-07-01T12:00:00.000000Z"
        await self.open.wait()
        if event["reason"] == self.refused:
            raise OSError("refused")
        async with self._news:
            self.sent.append(event["reason"])
            self._news.notify_all()


def a_note(reason: str) -> Note:
    return Note(
        {"apiVersion": "v1", "kind": "TrainingRun", "metadata": {"name": "run", "namespace": "films", "uid": "u"}}, reason, "some words"
    )


def taking(server: Server, *reasons: str) -> Recorder:
    events = Recorder(server.send, lambda: NOON)
    for reason in reasons:
        events.take(a_note(reason))
    return events


async def test_while_passes_wait_for_a_place_an_event_waits_too_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    server, looks = Server(), 0
    server.open.set()

    def is_busy() -> bool:
        nonlocal looks
        looks += 1
        return looks < 3

    events = taking(server, "One")
    events.is_busy = is_busy
    running = asyncio.create_task(events.run())
    await asyncio.wait_for(server.heard("One"), HANGS)
    assert looks == 3
    monkeypatch.setattr(recorder, "STANDS_BACK_SECONDS", 0.2)
    events.is_busy = lambda: True
    events.take(a_note("Two"))
    await asyncio.wait_for(server.heard("Two"), HANGS)
    running.cancel()


async def test_one_that_is_refused_does_not_keep_the_others() -> None:
    server = Server(refused="Two")
    events = taking(server, "One", "Two", "Three")
    running = asyncio.create_task(events.run())
    server.open.set()
    await asyncio.wait_for(server.heard("Three"), HANGS)
    events.take(a_note("Four"))
    await asyncio.wait_for(server.heard("Four"), HANGS)
    assert server.sent == ["One", "Three", "Four"]
    running.cancel()


async def test_the_one_under_way_and_those_behind_it_are_sent_at_the_end() -> None:
    server = Server()
    events = taking(server, "One", "Two")
    running = asyncio.create_task(events.run())
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    server.open.set()
    await events.close(HANGS)
    assert server.sent == ["One", "Two"]


async def test_the_end_does_not_wait_for_a_server_that_does_not_answer() -> None:
    server = Server()
    async with asyncio.timeout(HANGS):
        await taking(server, "One").close(0.01)
    assert server.sent == []


async def test_a_flood_is_dropped_at_its_end() -> None:
    server = Server()
    server.open.set()
    events = taking(server, *(str(number) for number in range(recorder.WAITING + 1)))
    await events.close(HANGS)
    assert server.sent == [str(number) for number in range(recorder.WAITING)]
