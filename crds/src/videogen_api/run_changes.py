"""CEL rules on what of a TrainingRun may be edited when: each compares with the old object, whose status says what has begun.

The operator marks a phase as begun before it makes the phase's first job, by a write that fails if the spec has changed meanwhile. So
a phase without the mark has done nothing, and nothing rests on what its spec says.
"""

from __future__ import annotations

from videogen_api.cel import merged
from videogen_api.training_run import Phase

OPERATIONAL = ("attempts", "window", "owner", "workers", "resources", "placement")  # of a phase: how it is worked on, not what it does
_SUSPENDED = "oldSelf.spec.suspend && self.spec.suspend"
_HOW = "set spec.suspend to true, make the change, then set it to false"
_IS_BEGUN = "(has(s.begun) && s.begun || has(s.outcome))"
_PINNED = "has(oldSelf.status) && has(oldSelf.status.initFrom)"
_NEW_RUN = "create a new TrainingRun instead"


def _same(name: str, one: str, other: str) -> str:
    """CEL: an optional field is in both with one value, or in none."""
    return f"(has({one}.{name}) ? has({other}.{name}) && {one}.{name} == {other}.{name} : !has({other}.{name}))"


def _same_work(one: str, other: str) -> str:
    fields = [field.alias or name for name, field in Phase.model_fields.items()]
    return " && ".join(_same(name, one, other) for name in fields if name not in OPERATIONAL)


def _field(name: str, unless: str, until: str) -> tuple[str, str]:
    """The rule on a field of the spec that may be edited while the run is suspended, unless that is too late."""
    rule = f"{_same(name, 'self.spec', 'oldSelf.spec')} || ({_SUSPENDED}{unless})"
    return rule, f"spec.{name} can only be changed while the run is suspended{until}: {_HOW}; or {_NEW_RUN}"


_UNTIL_BEGUN = " and none of its phases has begun"
_UNTIL_PINNED = f"{_UNTIL_BEGUN}, nor status.initFrom is there"

# A write of the status cannot change the spec, nor a write of the spec the status. Most writes are the operator's, of the status.
CHANGE_RULE = merged(
    [
        *(_field(name, " && size(begun) == 0", _UNTIL_BEGUN) for name in ("model", "recipe")),
        *(_field(name, f" && size(begun) == 0 && !({_PINNED})", _UNTIL_PINNED) for name in ("storage", "initFrom")),
        _field("tracking", "", ""),
        (
            f"(self.spec.phases == oldSelf.spec.phases && names == oldSelf.spec.phases.map(p, p.name)) || ({_SUSPENDED})",
            f"spec.phases can only be changed while the run is suspended: {_HOW}; or {_NEW_RUN}",
        ),
        (
            "size(begun) == 0 || (names.filter(name, name in begun) == begun && names.map(name, name in begun ? 0 : 1).isSorted())",
            f"spec.phases: phases that have begun cannot be removed, renamed or moved, and no phase can be put before them; {_NEW_RUN}",
        ),
        (
            "size(begun) == 0 || oldSelf.spec.phases.all(o, !(o.name in begun)"
            f" || self.spec.phases.all(p, p.name != o.name || {_same_work('p', 'o')}))",
            f"spec.phases: of a phase that has begun only {', '.join(OPERATIONAL)} can be changed; {_NEW_RUN}",
        ),
        (
            "!(has(oldSelf.status) && has(oldSelf.status.conditions))"
            " || !oldSelf.status.conditions.exists(c, c.type == 'Succeeded' && c.status == 'True')"
            " || names == oldSelf.spec.phases.map(p, p.name)",
            f"spec.phases: the run has succeeded, and no phase can be added to it; {_NEW_RUN}",
        ),
    ],
    "has(self.status) && has(oldSelf.status) && self.status != oldSelf.status",
    names="self.spec.phases.map(p, p.name)",
    begun=f"has(oldSelf.status) && has(oldSelf.status.phases) ? oldSelf.status.phases.filter(s, {_IS_BEGUN}).map(s, s.name) : []",
)
