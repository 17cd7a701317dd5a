import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from videogen_operator.loops import BackOff, Loops, Retry

Work = Callable[[str], Awaitable[float | None]]


def in_virtual_time(loop: Any, work: Work, story: Callable[[Loops[str]], Awaitable[None]], limit: int = 2) -> None:
    async def scene() -> None:
        loops = Loops[str](work, limit=limit, random=lambda: 0.0, back_off=BackOff(first=1, longest=8))
        await story(loops)
        await loops.close()

    loop.run_until_complete(scene())


def test_a_key_never_runs_twice_at_the_same_time_and_a_wake_meanwhile_runs_it_once_more(virtual_loop: Any) -> None:
    spans: list[tuple[float, float]] = []

    async def work(_: str) -> None:
        begun = virtual_loop.time()
        await asyncio.sleep(5)
        spans.append((begun, virtual_loop.time()))

    async def story(loops: Loops[str]) -> None:
        for _ in range(3):
            loops.wake("a")
            await asyncio.sleep(1)
        await asyncio.sleep(60)

    in_virtual_time(virtual_loop, work, story)
    assert spans == [(0, 5), (5, 10)]


def test_not_more_than_the_limit_run_but_an_urgent_key_starts_at_once(virtual_loop: Any) -> None:
    begun: dict[str, float] = {}

    async def work(key: str) -> None:
        begun[key] = virtual_loop.time()
        await asyncio.sleep(10)

    async def story(loops: Loops[str]) -> None:
        for key in "abcdef":
            loops.wake(key)
        await asyncio.sleep(1)
        loops.wake("rollback", urgent=True)
        loops.wake("f", urgent=True)
        await asyncio.sleep(100)

    in_virtual_time(virtual_loop, work, story)
    assert begun == {"a": 0, "b": 0, "rollback": 1, "f": 1, "c": 10, "d": 10, "e": 20}


def test_an_urgent_wake_of_a_running_key_repeats_it_as_soon_as_it_ends_although_others_wait(virtual_loop: Any) -> None:
    begun: list[tuple[str, float]] = []

    async def work(key: str) -> None:
        begun.append((key, virtual_loop.time()))
        await asyncio.sleep(10)

    async def story(loops: Loops[str]) -> None:
        for key in "abc":
            loops.wake(key)
        await asyncio.sleep(1)
        loops.wake("a", urgent=True)
        await asyncio.sleep(100)

    in_virtual_time(virtual_loop, work, story, limit=1)
    assert begun[:3] == [("a", 0), ("a", 10), ("b", 10)]


def standing_back(virtual_loop: Any, story: Callable[[Loops[str]], Awaitable[None]]) -> list[tuple[str, float]]:
    """What happens when each run works for 10 s, stands back for those that wait, and works for 1 s more; one at a time."""
    happened: list[tuple[str, float]] = []
    held: list[Loops[str]] = []

    async def work(key: str) -> None:
        await asyncio.sleep(10)
        happened.append((f"{key} stands back", virtual_loop.time()))
        await held[0].stand_back(key)
        await asyncio.sleep(1)
        happened.append((f"{key} ends", virtual_loop.time()))

    async def whole(loops: Loops[str]) -> None:
        held.append(loops)
        for key in "abc":
            loops.wake(key)
        await story(loops)

    in_virtual_time(virtual_loop, work, whole, limit=1)
    return happened


def test_who_stands_back_takes_its_turn_after_all_who_waited(virtual_loop: Any) -> None:
    happened = standing_back(virtual_loop, lambda _: asyncio.sleep(100))
    assert happened == [
        ("a stands back", 10),
        ("b stands back", 20),
        ("c stands back", 30),
        ("a ends", 31),
        ("b ends", 32),
        ("c ends", 33),
    ]


def test_who_stands_back_is_not_run_a_second_time_meanwhile_and_once_more_afterwards(virtual_loop: Any) -> None:
    async def story(loops: Loops[str]) -> None:
        await asyncio.sleep(15)
        loops.wake("a")
        assert loops.waiting() == [("c", 15), ("a", 5)], "a and c wait for a place"
        await asyncio.sleep(100)

    happened = standing_back(virtual_loop, story)
    assert [what for what, _ in happened if what.startswith("a")] == ["a stands back", "a ends", "a stands back", "a ends"]
    assert happened.index(("a ends", 31)) == 3


def test_an_urgent_wake_ends_the_standing_back_at_once(virtual_loop: Any) -> None:
    async def story(loops: Loops[str]) -> None:
        await asyncio.sleep(15)
        loops.wake("a", urgent=True)
        await asyncio.sleep(100)

    happened = standing_back(virtual_loop, story)
    assert happened[:3] == [("a stands back", 10), ("a ends", 16), ("b stands back", 20)]


def test_who_stands_back_when_all_is_closed_ends(virtual_loop: Any) -> None:
    async def story(loops: Loops[str]) -> None:
        await asyncio.sleep(15)

    assert standing_back(virtual_loop, story) == [("a stands back", 10)]


@pytest.mark.parametrize(
    "error, times",
    [
        (RuntimeError("a bug"), [0, 1, 3, 7, 15, 23]),
        (Retry("refused"), [0, 1, 3, 7, 15, 23]),
        (Retry("refused, look again soon", within=2), [0, 1, 3, 5, 7, 9]),
        (Retry("too many requests", within=2, least=3), [0, 3, 6, 9, 12, 15]),
    ],
)
def test_what_fails_is_repeated_with_doubling_delays_up_to_the_longest(virtual_loop: Any, error: Exception, times: list[float]) -> None:
    begun: list[float] = []

    async def work(_: str) -> None:
        begun.append(virtual_loop.time())
        if len(begun) < 7:
            raise error

    async def story(loops: Loops[str]) -> None:
        loops.wake("a")
        await asyncio.sleep(1000)

    in_virtual_time(virtual_loop, work, story)
    assert begun[:6] == times
    assert len(begun) == 7


def test_after_a_success_the_delays_begin_anew(virtual_loop: Any) -> None:
    begun: list[float] = []

    async def work(_: str) -> float | None:
        begun.append(virtual_loop.time())
        if len(begun) in {1, 2, 4}:
            raise Retry("refused")
        return 100.0 if len(begun) == 3 else None

    async def story(loops: Loops[str]) -> None:
        loops.wake("a")
        await asyncio.sleep(1000)

    in_virtual_time(virtual_loop, work, story)
    assert begun == [0, 1, 3, 103, 104]


def test_a_wake_comes_before_the_timer_and_replaces_it(virtual_loop: Any) -> None:
    begun: list[float] = []

    async def work(_: str) -> float | None:
        begun.append(virtual_loop.time())
        return 10.0 if len(begun) < 3 else None

    async def story(loops: Loops[str]) -> None:
        loops.wake("a")
        await asyncio.sleep(4)
        loops.wake("a")
        await asyncio.sleep(100)

    in_virtual_time(virtual_loop, work, story)
    assert begun == [0, 4, 14]


def test_nothing_runs_after_close(virtual_loop: Any) -> None:
    ended: list[str] = []

    async def work(key: str) -> float | None:
        await asyncio.sleep(10)
        ended.append(key)
        return 1.0

    async def story(loops: Loops[str]) -> None:
        for key in "abc":
            loops.wake(key)
        await asyncio.sleep(1)
        await loops.close()
        loops.wake("d")
        await asyncio.sleep(100)

    in_virtual_time(virtual_loop, work, story)
    assert ended == []


@pytest.mark.parametrize("repeats, random, seconds", [(1, 0.0, 1.0), (2, 0.0, 2.0), (7, 0.0, 60.0), (1, 0.5, 1.1), (10**6, 0.0, 60.0)])
def test_back_off_doubles_is_bounded_and_spread(repeats: int, random: float, seconds: float) -> None:
    assert BackOff().delay(repeats, random) == pytest.approx(seconds)
