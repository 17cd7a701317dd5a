"""Where a run of a cycle begins: the stable release of a service, whose weights it trains on or whose results it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from videogen_api.fine_tune_cycle import LABEL_MEASURES, Reason
from videogen_api.meta import ModelIdentity
from videogen_operator.kinds.fine_tune_cycle.observed import Cycle, value_at
from videogen_operator.kinds.fine_tune_cycle.status import Said
from videogen_operator.plan import Manifest


@dataclass(frozen=True, slots=True)
class Source:
    """spec.initFrom of a run, None: from scratch; and what follows from it."""

    init_from: Mapping[str, str] | None = None
    version: str | None = None  # that is measured; None: the next one is made
    after: str | None = None  # the version that the next one follows; None: the highest of the model
    labels: Mapping[str, str] = field(default_factory=dict)


def source(cycle: Cycle, stable: Mapping[str, Manifest]) -> Source | Said:
    """Where the cycle's next run begins, or what is waited for."""
    spec = cycle.spec
    named = ("target", spec.target.service) if spec.target else ("startFrom", spec.start_from.service) if spec.start_from else None
    if named is None:
        return Source()
    field_name, service = named
    if (release := stable.get(service)) is None:
        said = f"spec.{field_name} names service {service}, which has no stable release; waits for one"
        return Said(Reason.NO_STABLE_RELEASE, said, ready=False)
    name, family = str(release["metadata"]["name"]), spec.model.family
    where = f"spec.{field_name} names service {service}, whose stable release {name} is"
    if (found := value_at(release, "spec", "model", "family")) != family:
        return Said(Reason.NO_STABLE_RELEASE, f"{where} of family {found}, not {family}; name another", ready=False)
    try:
        model = ModelIdentity.model_validate(value_at(release, "spec", "model"))
    except ValidationError:
        return Said(Reason.NO_STABLE_RELEASE, f"{where} of a model that this operator cannot read", ready=False)
    same = (model.type, model.specialization) == (spec.model.type, spec.model.specialization)
    if spec.target is None:
        return Source({"release": name}, after=model.version if same else None)
    if not same:
        line = f"{spec.model.type}, {spec.model.specialization}"
        return Said(Reason.NO_STABLE_RELEASE, f"{where} {model.type}, {model.specialization}, not {line}; name another", ready=False)
    return Source({"release": name}, model.version, labels={LABEL_MEASURES: name})


def trial(cycle: Cycle) -> Source:
    """In place of a source, where only the template is looked at."""
    spec = cycle.spec
    service = spec.target.service if spec.target else spec.start_from.service if spec.start_from else None
    init = {"release": f"stable-{service}"[:63]} if service else None
    return Source(init, "0.0.1" if spec.target else None)
