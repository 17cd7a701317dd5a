"""ModelRelease: one loop for each service, because its releases share one route and one decision."""

from __future__ import annotations

from videogen_operator.kinds.model_release.judging.alerts import ALERTS, timed
from videogen_operator.kinds.model_release.judging.queries import queries
from videogen_operator.kinds.model_release.metrics import GAUGES, samples
from videogen_operator.kinds.model_release.observed import INDEXES, KIND, RESOURCES, Observed, keys, observe
from videogen_operator.kinds.model_release.plan import plan
from videogen_operator.plan import Kind

MODEL_RELEASE: Kind[Observed] = Kind(
    name=KIND,
    resources=RESOURCES,
    keys=keys,
    observe=observe,
    queries=queries,
    plan=plan,
    finish=timed,
    alerts=ALERTS,
    gauges=GAUGES,
    indexes=INDEXES,
    samples=samples,
)
