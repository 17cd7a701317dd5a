"""Live checks: a measurement and its bounds to a verdict. No data is Inconclusive, a failed measurement is Error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from videogen_api.evaluation import Verdict
from videogen_api.model_release import Check, CheckVerdict, LiveMetric
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.queries import compared, count_of, judged, step_requests, value_of
from videogen_operator.kinds.model_release.rollout import Round, round_due
from videogen_operator.kinds.model_release.states import CANARIES
from videogen_operator.plan import Unavailable

Measurements = Mapping[str, float | Unavailable]
_UNIT = {LiveMetric.LATENCY_P95_SECONDS: " s", LiveMetric.ERROR_RATIO: ""}
_WORD = {LiveMetric.LATENCY_P95_SECONDS: "P95 latency", LiveMetric.ERROR_RATIO: "error ratio"}


def round_of(release: Release, measurements: Measurements, checked: bool, now: datetime) -> Round | None:
    """The round of checks that is due now, or None if none is due or nobody has measured for it yet."""
    if not round_due(release.rollout, release.spec, checked, now):
        return None
    active = [check for check in release.spec.rollout.checks if judged(check, release)]
    names = [name for check in active for name in (count_of(release.name, check), value_of(release.name, check))]
    counting = release.rollout.state in CANARIES
    if not all(name in measurements for name in names) or (counting and step_requests(release.name) not in measurements):
        return None
    answered = _number(measurements.get(step_requests(release.name)))
    verdicts = tuple(_verdict(check, release, measurements) for check in active)
    return Round(verdicts, None if answered is None else int(answered))


def _verdict(check: Check, release: Release, measurements: Measurements) -> CheckVerdict:
    count, value = (measurements.get(name) for name in (count_of(release.name, check), value_of(release.name, check)))
    verdict, message = judge(check, count, value) if check.maximum is not None else (Verdict.PASSED, "")
    if verdict == Verdict.PASSED and compared(check, release):
        of_stable = (count_of(release.name, check, of_stable=True), value_of(release.name, check, of_stable=True))
        stable_count, stable_value = (measurements.get(name) for name in of_stable)
        verdict, message = judge_ratio(check, (count, value), (stable_count, stable_value))
    return CheckVerdict(name=check.name, verdict=verdict, message=message)


Measured = float | Unavailable | None


def judge(check: Check, count: Measured, value: Measured) -> tuple[Verdict, str]:
    """The verdict against the absolute maximum."""
    if problem := _no_data(check, count, value, "it"):
        return problem
    limit = float(check.maximum or "inf")
    sentence = f"{_words(check, value)}, may be at most {_plain(limit)}{_UNIT[check.metric]}"
    return (Verdict.PASSED if (_number(value) or 0.0) <= limit else Verdict.FAILED), sentence


def judge_ratio(check: Check, own: tuple[Measured, Measured], stable: tuple[Measured, Measured]) -> tuple[Verdict, str]:
    """The verdict against the stable release's value in the same window."""
    if problem := _no_data(check, *own, "it") or _no_data(check, *stable, "the stable release"):
        return problem
    factor, reference = float(check.maximum_ratio_to_stable or "inf"), _number(stable[1]) or 0.0
    bound = f"may be at most {_plain(factor)} times the stable release's {_plain(reference)}{_UNIT[check.metric]}"
    return (Verdict.PASSED if (_number(own[1]) or 0.0) <= factor * reference else Verdict.FAILED), f"{_words(check, own[1])}, {bound}"


def _no_data(check: Check, count: Measured, value: Measured, who: str) -> tuple[Verdict, str] | None:
    answered = _number(count)
    if answered is None:
        return Verdict.ERROR, f"requests could not be counted: {_reason(count)}"
    if answered < check.minimum_requests:
        return Verdict.INCONCLUSIVE, f"{who} answered {int(answered)} of {check.minimum_requests} requests in the window"
    if _number(value) is None:
        return Verdict.ERROR, f"{_WORD[check.metric]} could not be measured: {_reason(value)}"
    return None


def _number(measured: Measured) -> float | None:
    return measured if isinstance(measured, int | float) and math.isfinite(measured) else None


def _reason(measured: Measured) -> str:
    return measured.reason if isinstance(measured, Unavailable) else "Prometheus has no value"


def _words(check: Check, value: Measured) -> str:
    return f"{_WORD[check.metric]} {_plain(_number(value) or 0.0)}{_UNIT[check.metric]}"


def _plain(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"
