"""Quantities as nodes and pods write them."""

from decimal import Decimal

import pytest

from videogen_api.resources import number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24581696Ki", Decimal(24581696 * 1024)),  # a node's memory
        ("2", Decimal(2)),
        (8, Decimal(8)),
        ("500m", Decimal("0.5")),
        ("1.5", Decimal("1.5")),
        ("1Gi", Decimal(2**30)),
        ("1G", Decimal(10**9)),
        ("1k", Decimal(1000)),
        ("2Ei", Decimal(2**61)),
        ("1e3", Decimal(1000)),
        ("12E-1", Decimal("1.2")),
        ("1E", Decimal(10**18)),
        (".5", Decimal("0.5")),
        ("+2.", Decimal(2)),
        ("250u", Decimal("0.00025")),
        ("267847642337", Decimal(267847642337)),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str | int, value: Decimal) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "Ki", "1 Gi", "1K", "-1", "one", "1e3k", "0x1", "NaN", "Infinity", "1e100"])
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="accepted are numbers, alone or with"):
        number(text)
