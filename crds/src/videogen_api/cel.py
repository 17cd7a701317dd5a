"""Rules in CEL that look at the same values, as one rule of the schema.

Whenever a rule reads a field of an object, the API server copies the schemas of all its properties (`Properties` of
apiextensions-apiserver's pkg/apiserver/schema/cel/model), and every write of an object evaluates every rule. So rules over one object
share what they read, and only the message of a refusal looks at each of them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Rules = list[tuple[str, str]]  # condition, message
LONGEST_MESSAGE = 5120  # bytes; the API server leaves a longer one out
UNREAD = "a number is too large to compute with, or a field is missing that this needs; correct the other errors, then this one"


def merged(rules: Iterable[tuple[str, str]], unless: str = "", /, lacks: str = "", **read: str) -> dict[str, Any]:
    """One `x-kubernetes-validations` entry: all conditions of `rules` hold, or the message has the sentence of each that does not.

    `read` are the values that conditions have in common, by the names that they use; a later one may use those before it. Where the
    condition `unless` holds, nothing else is looked at. `lacks` says that a field is missing which the schema demands: an object of an
    older API, whose status can be written only if its rules hold. It comes last and costs nothing before (in CEL, true wins over an error).
    """
    listed = list(rules)
    assert sum(len(f"{sentence}. ".encode()) for _, sentence in listed) <= LONGEST_MESSAGE, "too many rules for one message"
    condition = " && ".join(f"({rule})" for rule, _ in listed)
    message = " + ".join(f"({rule} ? '' : {_quoted(sentence + '. ')})" for rule, sentence in listed)
    for name, value in reversed(read.items()):
        condition = f"[{value}].all({name}, {condition})"
        message = f"[{value}].map({name}, {message})[0]"
    return {"rule": " || ".join(part for part in (unless, condition, lacks) if part), "message": UNREAD, "messageExpression": message}


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
