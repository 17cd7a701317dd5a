"""When a phase is due, and whose turn it is: the calendar of a run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from videogen_api.cel import merged
from videogen_api.meta import Model, Observation, ShortName, Text, Timestamp, k8s


def _moment(text: str) -> str:
    datetime.fromisoformat(text)  # raises ValueError for a day that there is not
    return text


Moment = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$", max_length=25),
    AfterValidator(_moment),
    Field(json_schema_extra={"format": "date-time"}),
]


class Window(Model):
    """The time of a phase."""

    model_config = ConfigDict(
        json_schema_extra=k8s(
            rules=[("has(self.notBefore) || has(self.deadlineSeconds)", "a window has notBefore, deadlineSeconds or both; or leave it out")]
        )
    )

    not_before: Moment | None = Field(
        default=None, description='The phase begins no earlier, for example "2026-12-07T00:00:00Z"; absent: when the phase before is done.'
    )
    deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Seconds until the phase must be done, waiting and all attempts included, suspended time aside. Counted from the later"
        " of notBefore and the end of the phase before; of the first phase from the run's creation. When they are over, the phase fails.",
    )


class WaitingFor(Observation):
    """Whose turn it is."""

    team: ShortName = Field(description="Team that is waited for.")
    what: Text = Field(description="What is missing.")
    since: Timestamp | None = Field(default=None, description="Since when it is that team's turn.")
    due: Timestamp | None = Field(default=None, description="End of the window; absent: there is none.")


# CEL over the list of phases.
WINDOW_RULE = merged(
    [
        ("dated.map(p, p.window.notBefore).isSorted()", "window.notBefore of a phase may not be earlier than that of a phase before it"),
        (
            "dated.all(a, !has(a.window.deadlineSeconds) || dated.all(b, b.name == a.name || b.window.notBefore < a.window.notBefore"
            " || int(a.window.notBefore) + a.window.deadlineSeconds <= int(b.window.notBefore)))",
            "the windows of two phases overlap: notBefore + deadlineSeconds of the one may not be later than notBefore of the next",
        ),
    ],
    dated="self.filter(p, has(p.window) && has(p.window.notBefore))",
)
