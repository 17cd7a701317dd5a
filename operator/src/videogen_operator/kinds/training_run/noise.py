"""λ of a VideoFusion beside that of the stable release: who approves another one, and when it may change (decision 39)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from videogen_api.approvals import LAMBDA, Approval, GivenApproval
from videogen_api.meta import ModelFamily
from videogen_api.noise_shares import USUAL_SHARE, approvers, are_equal, changes_quarterly
from videogen_api.recipe import VideoFusion
from videogen_api.training_run import Phase, PhaseStatus, Reason, Task
from videogen_api.tuning import applied
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.sources import value_at
from videogen_operator.plan import Manifest


@dataclass(frozen=True, slots=True)
class Change:
    """A release's λ that differs from that of the stable release, or from the usual one where none serves."""

    fusion: VideoFusion
    told: str  # both, in words
    since: datetime | None  # when the stable release's became what it is; None: there is none, or it does not tell

    def next_quarter(self, now: datetime) -> datetime | None:
        """When λ may change again; None: now. A quarter is one of the calendar, in UTC."""
        if self.since is None or not changes_quarterly(self.fusion.base_scenario, self.fusion.residual_scenario):
            return None
        opens = _quarter_after(self.since)
        return opens if opens > now else None

    def too_early(self, opens: datetime) -> str:
        """Why the release waits, and what to do."""
        assert self.since is not None
        return (
            f"{self.told}that has been so since {self.since:%Y-%m-%d}, and with scenario Standard λ changes once a quarter: the next one"
            f" begins on {opens:%Y-%m-%d}. Release the stable release's λ, or name the scenario that needs another one"
        )


def change_of(observed: Observed, phase: Phase) -> Change | None:
    """What changes with the release of this phase; None: nothing."""
    if observed.spec.model.family != ModelFamily.VIDEOFUSION or phase.release is None:
        return None
    fusion, stable = applied(observed.spec.recipe, observed.status.tuned).fusion, _stable(observed)
    shares = _shares(stable)
    if are_equal(fusion.shares, shares):
        return None
    whose = f"that of {stable['metadata']['name']}, stable in service {phase.release.service}," if stable else "the usual one"
    told = f"λ is {_told(fusion.shares)}, and {whose} {'is ' + _told(shares) if shares else 'is not known'}; "
    return Change(fusion=fusion, told=told, since=_since(stable))


def since(observed: Observed, now: datetime) -> str | None:
    """For the lineage of a release that is made now: since when releases have had its λ without a break."""
    if observed.spec.model.family != ModelFamily.VIDEOFUSION:
        return None
    fusion, stable = applied(observed.spec.recipe, observed.status.tuned).fusion, _stable(observed)
    kept = _since(stable) if stable and are_equal(fusion.shares, _shares(stable)) else None
    return timestamp(kept or now)


def approvals_of(change: Change, observed: Observed) -> tuple[Approval, ...]:
    """Approvals that the change needs and that no Approve phase has brought."""
    given = {one.team for one in approved(observed)}
    teams = approvers(change.fusion.base_scenario, change.fusion.residual_scenario)
    return tuple(Approval(kind=LAMBDA, team=team) for team in teams if team not in given)


def approved(observed: Observed) -> list[GivenApproval]:
    """Approvals of λ by Approve phases after which no Tune phase chooses another one."""
    tasks = [phase.task for phase in observed.spec.phases]
    last = len(tasks) - 1 - tasks[::-1].index(Task.TUNE) if Task.TUNE in tasks else -1
    names = {phase.name for phase in observed.spec.phases[last + 1 :] if phase.task == Task.APPROVE}
    return [given for one in done_phases(observed) if one.name in names for given in one.approvals if given.kind == LAMBDA]


def done_phases(observed: Observed) -> list[PhaseStatus]:
    """Phases that are completed."""
    return [one for one in observed.status.phases if one.outcome == Reason.COMPLETED]


def _stable(observed: Observed) -> Manifest | None:
    stable = observed.stable
    return stable if stable is not None and value_at(stable, "spec", "model", "family") == ModelFamily.VIDEOFUSION else None


def _shares(stable: Manifest | None) -> list[str]:
    """Of the stable release; [] if it does not tell, the usual one if there is none."""
    return (value_at(stable, "spec", "lineage", "baseNoiseShares") or []) if stable else [USUAL_SHARE]


def _since(stable: Manifest | None) -> datetime | None:
    said = value_at(stable, "spec", "lineage", "baseNoiseSharesSince") if stable else None
    return datetime.fromisoformat(said) if isinstance(said, str) else None


def _quarter_after(moment: datetime) -> datetime:
    year, quarter = divmod(moment.astimezone(UTC).year * 4 + (moment.astimezone(UTC).month - 1) // 3 + 1, 4)
    return datetime(year, quarter * 3 + 1, 1, tzinfo=UTC)


def _told(shares: Sequence[str]) -> str:
    return ", ".join(shares) if len(shares) <= 3 else f"{', '.join(shares[:3])}, ... ({len(shares)} frames)"
