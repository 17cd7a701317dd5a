"""Captions to numbers."""

from __future__ import annotations

import pytest

from videogen_models.text import BEGIN, END, PADDING, TextSize, tokenize, words

SIZE = TextSize(vocabulary=4096, length=8, width=8, layers=1, heads=1)


@pytest.mark.parametrize(
    "caption, expected",
    [
        ("A red square, moving right.", ["a", "red", "square", "moving", "right"]),
        ("  don't  STOP ", ["don't", "stop"]),
        ("ＦＵＬＬ width", ["full", "width"]),
        ("snake_case", ["snake", "case"]),
        ("लाल वर्ग, दाएँ", ["लाल", "वर्ग", "दाएँ"]),
        ("ക\u200dഷ நீல", ["കഷ", "நீல"]),
        ("'quoted' 3.5", ["quoted", "3", "5"]),
        ("...", []),
        ("", []),
    ],
)
def test_words_of_a_caption(caption: str, expected: list[str]) -> None:
    assert words(caption) == expected


def test_a_row_begins_ends_and_is_padded() -> None:
    row = tokenize(["red square"], SIZE)[0].tolist()
    assert row[0] == BEGIN
    assert row[3] == END
    assert row[4:] == [PADDING] * 4
    assert all(3 < token < SIZE.vocabulary for token in row[1:3])


def test_a_long_caption_is_cut_and_still_ends() -> None:
    row = tokenize(["one two three four five six seven eight nine"], SIZE)[0].tolist()
    assert len(row) == SIZE.length
    assert row[-1] == END


def test_no_captions_are_an_empty_batch() -> None:
    assert tokenize([], SIZE).shape == (0, SIZE.length)


def test_the_numbers_never_change_because_trained_weights_depend_on_them() -> None:
    assert tokenize(["red square", "लाल"], SIZE)[:, 1:3].tolist() == [[2423, 2717], [1922, 3]]
