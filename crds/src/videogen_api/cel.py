"""Rules in CEL that look at the same values, as one rule of the schema.

Whenever a rule reads a field of an object, the API server copies the schemas of all its properties (`Properties` of
apiextensions-apiserver's pkg/apiserver/schema/cel/model), and every write of an object evaluates every rule. So rules over one object
share what they read, and only the message of a refusal looks at each of them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Rules = list[tuple[str, str]]  # condition, message


def merged(rules: Iterable[tuple[str, str]], unless: str = "", /, **read: str) -> dict[str, Any]:
    """One `x-kubernetes-validations` entry: all conditions of `rules` hold, or the message has the sentence of each that does not.

    `read` are the values that conditions have in common, by the names that they use; a later one may use those before it. Where the
    condition `unless` holds, nothing else is looked at.
    """
    listed = list(rules)
    condition = " && ".join(f"({rule})" for rule, _ in listed)
    message = " + ".join(f"({rule} ? '' : {_quoted(sentence + '. ')})" for rule, sentence in listed)
    for name, value in reversed(read.items()):
        condition = f"[{value}].all({name}, {condition})"
        message = f"[{value}].map({name}, {message})[0]"
    return {"rule": f"{unless} || {condition}" if unless else condition, "messageExpression": message}


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
