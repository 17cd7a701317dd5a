"""A person's wish in the annotation `videogen.pib.gov.in/request: "<verb>@<id>"`, answered once in lastHandledRequest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.states import CANARIES, RETRIABLE, SERVING, WITHDRAWABLE, State

VERBS: Mapping[str, frozenset[State]] = {
    "abort": SERVING
    | {State.PENDING, State.GATING, State.QUEUED, State.STARTING},  # its traffic goes back, or it leaves the race: no blame
    "quarantine": frozenset(State),  # the same, and its digest gets no traffic under any name
    "withdraw": WITHDRAWABLE,  # it leaves the service, whether another release can take over or not
    "promote": CANARIES,  # skip the remaining steps
    "hold": frozenset({State.CANARY}),  # stay at this step
    "resume": frozenset({State.HELD}),  # go on
    "retry": RETRIABLE,  # start again, in spite of a rollback, a quarantine or a later version
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has not been answered yet."""

    token: str  # the annotation's value, as the answer repeats it
    verb: str = ""  # "" if it asks for nothing that can be done
    refusal: str = ""  # why it cannot be done


def pending(release: Release) -> Request | None:
    """The unanswered request, or None. A verb that the state does not know is refused in words and answered."""
    token = str((release.manifest["metadata"].get("annotations") or {}).get(ANNOTATION_REQUEST, ""))[:128]
    if not token or token == release.status.last_handled_request:
        return None
    verb, at, identifier = token.partition("@")
    if verb not in VERBS or not at or not identifier:
        accepted = ", ".join(f"{word}@<id>" for word in VERBS)
        return Request(token, refusal=f"annotation {ANNOTATION_REQUEST} is {token!r}; accepted are {accepted}")
    state = release.rollout.state
    if state not in VERBS[verb]:
        return Request(token, refusal=f"{verb} was asked for and does nothing to a release that is {state}")
    return Request(token, verb)
