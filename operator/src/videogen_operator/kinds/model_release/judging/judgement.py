"""Is the digest of a release that was rolled back quarantined? Only if two signals blame it that do not rest on one another.

A rollback is one write and costs little: it follows the first signal at once. A quarantine lasts, so it takes more: the
release's own servers and, apart from them, the gateway must say that the same check failed in the window that led to the
rollback, and both must say that the release that took over passed it in that same window. Else whoever can make all servers
slow, or write one release's metrics, could bar a good digest. What failed must be the check's own maximum: a ratio says as
well that the other release was fast, which viewers who ask it for little can bring about. An alert of the chart's and a check rest on the
same counters: they are one signal. So are a server that crashed and the errors of the requests that went down with it,
therefore a crash needs the servers' own metrics beside it. A person's request needs nothing else.

The gateway's histograms appear some seconds late, so the second signal is waited for, for a short while after the rollback.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from videogen_api.evaluation import Verdict
from videogen_api.model_release import Check, Reason, RollbackRecord, Signal
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release import pods
from videogen_operator.kinds.model_release.judging.checks import Measurements, judge, read
from videogen_operator.kinds.model_release.judging.queries import at_rollback
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.states import State

AWAIT_SECONDS = 30  # Envoy shows its histograms every 5 s, and Prometheus looks every 30 s or more often
PAIRS = frozenset({frozenset({Signal.SERVERS, Signal.GATEWAY}), frozenset({Signal.SERVERS, Signal.CRASH})})  # independent of one another


def is_enough(signals: Iterable[Signal]) -> bool:
    """Whether these signals quarantine a digest."""
    found = frozenset(signals)
    return Signal.REQUEST in found or any(pair <= found for pair in PAIRS)


def begun(record: RollbackRecord, signals: Iterable[Signal], now: datetime) -> RollbackRecord:
    """The record of a rollback that is just decided, with what its first signals say of the quarantine."""
    found = tuple(signals)
    said: dict[str, object] = {"quarantined": False, "signals": list(found)}
    if record.reason == Reason.QUARANTINED:
        said |= {"quarantined": True, "judgement": "it was quarantined before"}
    elif is_enough(found):
        said |= {"quarantined": True, "judgement": "a person asked for it"}
    elif record.to and {Signal.SERVERS, Signal.CRASH} & set(found):
        until = timestamp(now + timedelta(seconds=AWAIT_SECONDS))
        said |= {"awaits_until": until, "judgement": f"{_words(found)} alone; a second signal is waited for until {until}"}
    else:
        said |= {"judgement": _blameless(record, found)}
    return record.model_copy(update=said)


def _blameless(record: RollbackRecord, signals: tuple[Signal, ...]) -> str:
    if record.reason == Reason.ROLLED_BACK_REQUEST:
        return "a person took the traffic back, and blames nothing"
    if record.reason == Reason.ROLLED_BACK_MEASUREMENT:
        return "a measurement alone quarantines nothing"
    return "an alert of the namespace's own quarantines nothing" if signals else "nothing says that it is the release's own fault"


def concluded(record: RollbackRecord, release: Release, other: Release | None, measurements: Measurements, now: datetime) -> RollbackRecord:
    """The record with what the second signal says; as it was while there is none and there is still time."""
    until = moment(record.awaits_until)
    if until is None or release.rollout.state != State.ROLLED_BACK:
        return record
    if not any(name.startswith(f"{release.name}/") for name in measurements) and now < until + timedelta(seconds=AWAIT_SECONDS):
        return record  # this pass asked about something else, an alert: the next one asks about the release
    added, doubt = _second(record, release, other, measurements)
    if added:
        signals = list(dict.fromkeys([*record.signals, *added]))
        why = f"{_words(signals)} agree, and {record.to} passed in the same time"
        return record.model_copy(update={"quarantined": True, "signals": signals, "awaits_until": None, "judgement": why[:1024]})
    if now < until <= now + timedelta(seconds=AWAIT_SECONDS):  # further ahead it lies only if the clock was set back since
        return record
    return record.model_copy(update={"awaits_until": None, "judgement": f"{_words(record.signals)} alone: {doubt}"[:1024]})


def _second(record: RollbackRecord, release: Release, other: Release | None, measurements: Measurements) -> tuple[tuple[Signal, ...], str]:
    """The signals that a failed check adds to those of the record; or none, and why."""
    if other is None or not other.ready:
        return (), f"{record.to or 'no release'} has no ready pod"
    since = moment(record.time)
    if since is not None and (crash := pods.ended_by_itself(other, since - pods.CRASH_SECONDS)):
        return (), f"{other.name} is affected, too: {crash}"
    by_crash = Signal.SERVERS not in record.signals
    doubts = [_doubt(check, release.name, other.name, measurements, by_crash) for check in release.spec.rollout.checks]
    if "" in doubts:
        return (Signal.SERVERS,) if by_crash else (Signal.SERVERS, Signal.GATEWAY), ""
    return (), doubts[0] if doubts else "it has no checks"


def _doubt(check: Check, release: str, other: str, measurements: Measurements, by_crash: bool) -> str:
    """Why this check is no second signal, or ""."""
    own, own_gateway, beside, beside_gateway = (
        read(measurements, at_rollback(release, check, who, by)) for who in ("own", "other") for by in ("servers", "gateway")
    )
    if check.maximum is None:
        return f"check {check.name} has no maximum, and a ratio to another release quarantines nothing"
    for who, mine in (("its servers", own), *(() if by_crash else (("the gateway", own_gateway),))):
        verdict, words = judge(check, *mine)
        if verdict != Verdict.FAILED:
            return f"check {check.name} of {who}: {words}"
    for who, theirs in ((f"{other}'s servers", beside), (f"the gateway about {other}", beside_gateway)):
        verdict, words = judge(check, *theirs)
        if verdict != Verdict.PASSED:
            said = f"{other} is affected, too" if verdict == Verdict.FAILED else f"nothing says that {other} was not affected"
            return f"{said}: check {check.name} of {who}: {words}"
    return ""


def _words(signals: Iterable[Signal]) -> str:
    return " and ".join(_NAMES[signal] for signal in signals)


_NAMES = {
    Signal.SERVERS: "its servers' metrics",
    Signal.GATEWAY: "the gateway",
    Signal.CRASH: "its crash",
    Signal.ALERT: "an alert",
    Signal.REQUEST: "a person",
}
