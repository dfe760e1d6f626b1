"""What pydantic found wrong with an input, in words for whoever sent it: they know JSON, not Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from broker.wire.base import Label, Name

LONGEST = 300

_PATTERNS = {
    TypeAdapter(Name).json_schema()["pattern"]: "must be a name of lower-case letters, digits and hyphens, "
    "63 characters at most (a DNS label)",
    TypeAdapter(Label).json_schema()["pattern"]: "must be a label value of letters, digits, hyphens, dots and "
    "underscores, 63 characters at most",
}
_PLAIN = {
    "extra_forbidden": "there is no such field here",
    "missing": "is missing",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "timezone_aware": "needs its offset from UTC, such as 2026-12-01T14:00:00Z",
    "datetime_from_date_parsing": "must be a time such as 2026-12-01T14:00:00Z (RFC 3339)",
    "datetime_parsing": "must be a time such as 2026-12-01T14:00:00Z (RFC 3339)",
    "json_invalid": "is not JSON",
}
_WITH_LIMIT = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "has fewer than {min_length} characters",
    "string_too_long": "has more than {max_length} characters",
    "too_short": "has fewer than {min_length} entries",
    "too_long": "has more than {max_length} entries",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}


def mistakes(error: ValidationError, *, most: int) -> list[tuple[tuple[int | str, ...], str]]:
    """(where, what) of the first ``most`` mistakes; nothing of what was sent, beyond what our own words quote."""
    found = error.errors(include_url=False, include_input=False)
    return [(each["loc"], sentence(each)) for each in found[:most]]


def sentence(found: ErrorDetails) -> str:
    """One mistake in words."""
    context: Mapping[str, Any] = found.get("ctx", {})
    kind = found["type"]
    if kind in _WITH_LIMIT:
        return _WITH_LIMIT[kind].format_map(context)[:LONGEST]
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    return _PLAIN.get(kind, found["msg"].removeprefix("Value error, "))[:LONGEST]
