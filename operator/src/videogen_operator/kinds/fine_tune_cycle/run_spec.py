"""The spec of a cycle's next run, from its template and all that is filled in; and whether there would be one, tried before it is due."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from videogen_api.fine_tune_cycle import PastRun, Reason
from videogen_api.meta import ModelIdentity
from videogen_operator.kinds.fine_tune_cycle import collection, stages
from videogen_operator.kinds.fine_tune_cycle.observed import Cycle
from videogen_operator.kinds.fine_tune_cycle.template import spec_of

REMEMBERED = 4096


class CycleError(ValueError):
    """The cycle can make no run, and waiting does not help."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a run's spec follows from, beside the cycle's."""

    model: ModelIdentity
    init_from: Mapping[str, str] | None
    values: Mapping[str, str]  # of placeholders
    last: PastRun | None  # the last run that succeeded
    scheduled: bool  # False: by request


def filled(cycle: Cycle, order: Order) -> dict[str, Any]:
    """The spec. Raises CycleError with the field that is wrong if it would be none."""
    spec = cycle.spec
    try:
        run = spec_of(spec.run_template.spec, order.model, order.init_from, order.values)
    except ValueError as error:
        raise CycleError(Reason.TEMPLATE_INVALID, f"spec.runTemplate.spec.{error}") from None
    try:
        run = collection.filled(spec, run, order.last, scheduled=order.scheduled)
    except ValueError as error:
        raise CycleError(Reason.COLLECT_INVALID, f"spec.{error}") from None
    try:
        stages.check(spec.stages, run)
    except ValueError as error:
        raise CycleError(Reason.STAGES_INVALID, f"spec.{error}") from None
    return run


def check(cycle: Cycle, order: Order) -> None:
    """Raises CycleError if there would be no spec. What has passed is not tried again, because each pass asks for each cycle of a line."""
    digest = _digest(cycle, order)
    if digest not in _passed:
        filled(cycle, order)
        _passed[digest] = None
        if len(_passed) > REMEMBERED:
            del _passed[next(iter(_passed))]


_passed: dict[bytes, None] = {}  # digests alone: templates may be long, and anybody may write many


def _digest(cycle: Cycle, order: Order) -> bytes:
    """Of everything that `filled` reads."""
    datasets = [(one.dataset, one.version) for one in order.last.datasets] if order.last else []
    read = [cycle.manifest["spec"], order.model.wire(), order.init_from, order.values, datasets, order.scheduled]
    return hashlib.sha256(json.dumps(read).encode()).digest()
