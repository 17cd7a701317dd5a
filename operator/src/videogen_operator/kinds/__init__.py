"""The kinds that the operator decides about. Adding one: an API module, a package here, one line in KINDS."""

from __future__ import annotations

from typing import Any

from videogen_operator.kinds.fine_tune_cycle import FINE_TUNE_CYCLE
from videogen_operator.kinds.model_release import MODEL_RELEASE
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.plan import Kind

KINDS: tuple[Kind[Any], ...] = (TRAINING_RUN, FINE_TUNE_CYCLE, MODEL_RELEASE)
