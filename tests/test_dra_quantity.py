"""Quantities are exact, bounded, and those of Kubernetes."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dra import quantity
from broker.dra.quantity import BadQuantity, Quantity, parse

SUFFIXES = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


@pytest.mark.parametrize(
    ("text", "same"),
    [("1Gi", "1024Mi"), ("1k", "1000"), ("0.5", "500m"), ("1e3", "1k"), ("1E", "1e18"), (".5", "500m"), ("5.", "5")],
)
def test_different_texts_of_one_amount_are_equal(text, same):
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    "text", ["", "Gi", "1gi", "1KB", "--1", "1e", "1 Gi", "0x10", "1_000", "١", "NaN", "1" * 65, "."]
)
def test_what_kubernetes_does_not_read_is_refused(text):
    with pytest.raises(BadQuantity):
        parse(text)


@given(
    whole=st.integers(0, 10**6),
    fraction=st.text("0123456789", max_size=12),
    suffix=st.sampled_from(sorted(SUFFIXES) + sorted(BINARY)),
    sign=st.sampled_from(["", "+", "-"]),
)
def test_a_quantity_is_exact_and_finer_than_a_billionth_rounds_away_from_zero(whole, fraction, suffix, sign):
    factor = 2 ** BINARY[suffix] if suffix in BINARY else Fraction(10) ** SUFFIXES[suffix]
    exact = Fraction(f"{whole}.{fraction or 0}") * factor * 10**9
    expected = min(-(-exact.numerator // exact.denominator), (2**63 - 1) * 10**9)

    assert parse(f"{sign}{whole}.{fraction}{suffix}").nanos == (-expected if sign == "-" else expected)


@given(st.integers(-(2**63 - 1), 2**63 - 1))
def test_what_is_written_reads_back_as_the_same_amount(nanos):
    assert parse(str(Quantity(nanos))) == Quantity(nanos)


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62))
def test_order_and_sums_are_those_of_the_amounts(left, right):
    assert (Quantity(left) < Quantity(right)) == (left < right)
    assert (Quantity(left) + Quantity(right)).nanos == left + right


@pytest.mark.parametrize("text", ["1e999999999999", "-1e999999999999", "1e-999999999999", "9" * 64, "0e999999999999"])
def test_an_absurd_exponent_is_read_at_once_and_stays_small(text):
    assert abs(parse(text).nanos) <= (2**63 - 1) * 10**9


@pytest.mark.parametrize("raw", [True, None, [], {}, float("inf"), float("nan"), 10**400])
def test_json_that_is_no_quantity_is_refused(raw):
    with pytest.raises(BadQuantity):
        quantity.from_json(raw)


def test_bare_numbers_are_quantities_as_in_kubernetes():
    assert quantity.from_json(4) == parse("4")
    assert quantity.from_json(0.5) == parse("500m")
