"""Live checks: a measurement and its bounds to a verdict. No data is Inconclusive, a failed measurement is Error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from videogen_api.evaluation import Verdict
from videogen_api.model_release import Check, CheckVerdict, LiveMetric
from videogen_operator.kinds.model_release.judging.alerts import Answer, checks_of
from videogen_operator.kinds.model_release.judging.queries import Names, at_alert, compared, count_of, judged, step_requests, value_of
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.rollout import Round, round_due
from videogen_operator.kinds.model_release.states import CANARIES
from videogen_operator.plan import Manifest, Unavailable

Measurements = Mapping[str, float | Unavailable]
_UNIT = {LiveMetric.LATENCY_P95_SECONDS: " s", LiveMetric.ERROR_RATIO: ""}
_DIFFERENCE = {LiveMetric.LATENCY_P95_SECONDS: "0.1", LiveMetric.ERROR_RATIO: "0.01"}  # without minimumDifference
_WORD = {LiveMetric.LATENCY_P95_SECONDS: "P95 latency", LiveMetric.ERROR_RATIO: "error ratio"}


def round_of(release: Release, measurements: Measurements, now: datetime) -> Round | None:
    """The round of checks that is due now, or None if none is due or nobody has measured for it yet."""
    if not round_due(release.rollout, release.spec, now):
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
    own = read(measurements, Names(count_of(release.name, check), value_of(release.name, check)))
    of_stable = Names(count_of(release.name, check, of_stable=True), value_of(release.name, check, of_stable=True))
    verdict, message = judge_bounds(check, own, read(measurements, of_stable) if compared(check, release) else None)
    return CheckVerdict(name=check.name, verdict=verdict, message=message)


def verified(alert: Manifest, release: Release, measurements: Measurements) -> Answer | None:
    """None if a check that the alert applies has failed by what Prometheus says of this release; else why nothing is done.
    No answer is no verdict: the alert must be sent again.
    """
    found = [judge(check, *read(measurements, at_alert(release.name, check)))[0] for check in checks_of(alert, release)]
    if Verdict.FAILED in found:
        return None
    return Answer.UNVERIFIED if Verdict.ERROR in found else Answer.NOT_CONFIRMED


Measured = float | Unavailable | None
Pair = tuple[Measured, Measured]  # how many requests, and the metric over them


def read(measurements: Measurements, names: Names) -> Pair:
    """What was measured under these names."""
    return measurements.get(names.requests), measurements.get(names.value)


def judge_bounds(check: Check, own: Pair, stable: Pair | None) -> tuple[Verdict, str]:
    """The verdict against both bounds of the check; without another release against its maximum alone."""
    verdict, message = judge(check, *own) if check.maximum is not None else (Verdict.PASSED, "")
    if verdict == Verdict.PASSED and stable is not None and check.maximum_ratio_to_stable is not None:
        return judge_ratio(check, own, stable)
    return verdict, message


def judge(check: Check, count: Measured, value: Measured) -> tuple[Verdict, str]:
    """The verdict against the absolute maximum."""
    if problem := _no_data(check, count, value, "it"):
        return problem
    limit = float(check.maximum or "inf")
    sentence = f"{_words(check, value)}, may be at most {_plain(limit)}{_UNIT[check.metric]}"
    return (Verdict.PASSED if (_number(value) or 0.0) <= limit else Verdict.FAILED), sentence


def judge_ratio(check: Check, own: Pair, stable: Pair) -> tuple[Verdict, str]:
    """The verdict against the stable release's value in the same window. A ratio to almost nothing says nothing, so the value must
    also differ from what is allowed by `minimumDifference`.
    """
    if problem := _no_data(check, *own, "it") or _no_data(check, *stable, "the stable release"):
        return problem
    factor, reference = float(check.maximum_ratio_to_stable or "inf"), _number(stable[1]) or 0.0
    floor = min(factor, 1.0) * reference + float(check.minimum_difference or _DIFFERENCE[check.metric])
    unit = _UNIT[check.metric]
    least = f", or {_plain(floor)}{unit} (minimumDifference)" if floor > factor * reference else ""
    bound = f"may be at most {_plain(factor)} times the stable release's {_plain(reference)}{unit}{least}"
    passed = (_number(own[1]) or 0.0) <= max(factor * reference, floor)
    return (Verdict.PASSED if passed else Verdict.FAILED), f"{_words(check, own[1])}, {bound}"


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
