"""What a request may say, and how a wrong one is refused."""

from __future__ import annotations

import pytest

from videogen_serving.request import InvalidRequestError, Request, check_request

ACCEPTED = {
    "one character": Request(prompt="x"),
    "five hundred characters": Request(prompt="x" * 500),
    "Hindi with a zero-width joiner": Request(prompt="क्\u200dष किसान खेत में"),
    "the smallest seed and number of steps": Request(prompt="x", seed=0, steps=1),
    "the greatest seed and number of steps": Request(prompt="x", seed=2**31 - 1, steps=1000),
}

REFUSED = {
    "an empty prompt": (Request(prompt=""), "PROMPT is empty; write 1 to 500 characters"),
    "a prompt of spaces": (Request(prompt="   "), "PROMPT is empty"),
    "501 characters": (Request(prompt="x" * 501), "PROMPT has 501 characters; accepted are 1 to 500"),
    "a line break": (Request(prompt="a\nb"), "PROMPT has the unprintable character U+000A at position 1; remove it"),
    "a zero byte": (Request(prompt="\x00"), r"PROMPT has the unprintable character U\+0000 at position 0"),
    "text that turns its direction": (Request(prompt="a\u202eb"), r"PROMPT has the unprintable character U\+202E at position 1"),
    "a negative seed": (Request(prompt="x", seed=-1), "SEED is -1; accepted is a whole number from 0 to 2147483647"),
    "a seed beyond 31 bits": (Request(prompt="x", seed=2**31), "SEED is 2147483648"),
    "no steps at all": (Request(prompt="x", steps=0), "STEPS is 0; accepted is a whole number from 1 to 1000"),
    "more steps than the diffusion has": (Request(prompt="x", steps=1001), "STEPS is 1001"),
}


@pytest.mark.parametrize("request_", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(request_: Request) -> None:
    check_request(request_, 1000)


@pytest.mark.parametrize("request_, message", REFUSED.values(), ids=REFUSED.keys())
def test_refused(request_: Request, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message.replace("U+", r"U\+") if r"\+" not in message else message):
        check_request(request_, 1000)


def test_a_request_may_ask_for_as_many_steps_as_the_release_allows_and_no_more() -> None:
    check_request(Request(prompt="x", steps=10), 10)
    with pytest.raises(InvalidRequestError, match=r"STEPS is 11; accepted is a whole number from 1 to 10$"):
        check_request(Request(prompt="x", steps=11), 10)
