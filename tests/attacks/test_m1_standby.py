"""A standby operator's own probe ended it once a minute. On a cluster, with a takeover: tests/cluster/test_leadership.py."""

from videogen_operator.watchdog import Watchdog


def test_a_standby_is_alive_and_ready_for_months_as_long_as_it_ticks_and_sees_a_leader() -> None:
    clock, leader = [0.0], [True]
    dog = Watchdog(60, lambda: False, lambda: clock[0], lambda: leader[0])
    for clock[0] in range(0, 10_000_000, 25_000):
        dog.tick([])
        assert (dog.dead(), dog.unready()) == ("", "")
        assert dog.idle() == "the Lease is not held"
    leader[0] = False
    assert "nobody is known to hold it" in dog.unready()
    assert dog.dead() == ""
