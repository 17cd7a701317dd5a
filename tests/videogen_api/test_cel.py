"""One rule for several: its condition is theirs, its message that of those that do not hold."""

import pytest

from videogen_api.cel import merged


def test_all_conditions_hold_over_values_that_are_read_once() -> None:
    rule = merged([("a > 0", "a must be positive"), ("b.x < a", "x must be less than a")], a="self.a", b="self.b")["rule"]
    assert rule == "[self.a].all(a, [self.b].all(b, (a > 0) && (b.x < a)))"


def test_the_message_has_a_sentence_for_each_condition_that_does_not_hold() -> None:
    message = merged([("self > 0", "must be positive"), ("self < 9", "must be small")])["messageExpression"]
    assert message == "(self > 0 ? '' : 'must be positive. ') + (self < 9 ? '' : 'must be small. ')"


def test_nothing_else_is_looked_at_where_another_condition_holds() -> None:
    assert merged([("a > 0", "no")], "!has(self.a)", a="self.a")["rule"] == "!has(self.a) || [self.a].all(a, (a > 0))"


def test_quotes_and_backslashes_of_a_message_are_text() -> None:
    assert merged([("false", r"the run's \d")])["messageExpression"] == r"(false ? '' : 'the run\'s \\d. ')"


def test_an_object_that_lacks_what_the_schema_demands_keeps_its_rules() -> None:
    assert merged([("a > 0", "no")], lacks="!has(self.a)", a="self.a")["rule"] == "[self.a].all(a, (a > 0)) || !has(self.a)"


def test_sentences_that_the_api_server_would_leave_out_are_no_rule() -> None:
    with pytest.raises(AssertionError, match="too many rules for one message"):
        merged([("true", "x" * 3000), ("false", "y" * 3000)])
