"""JSON as we accept it: what is accepted means what everybody else reads, and nothing else gets out but one refusal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.kit import strict_json

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_what_anybody_writes_is_read_as_it_was_meant(value, ascii_):
    assert strict_json.loads(json.dumps(value, ensure_ascii=ascii_).encode()) == value


@given(st.binary(max_size=200) | st.text('[]{}":,\\u0d8\0 eE+-.NaIn', max_size=60).map(str.encode))
def test_whatever_comes_is_a_value_or_one_kind_of_refusal(data):
    try:
        value = strict_json.loads(data)
    except strict_json.BadJson:
        return
    assert strict_json.loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize("deep", [b"[" * 32 + b"]" * 32, b'{"a":' * 32 + b"1" + b"}" * 32])
def test_the_limit_of_nesting_is_exact(deep):
    strict_json.loads(deep)
    with pytest.raises(strict_json.BadJson, match="32 levels"):
        strict_json.loads(b"[" + deep + b"]")


@pytest.mark.parametrize(
    "text", [rb'"\u0000"', rb'{"\u0000": 1}', rb'["x", {"a": ["\u0000"]}]', rb'"\uDEAD"', b'"\xed\xa0\x80"']
)
def test_a_character_that_not_everybody_can_keep_is_found_wherever_it_is(text):
    with pytest.raises(strict_json.BadJson):
        strict_json.loads(text)
