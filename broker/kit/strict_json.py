"""JSON as we accept it: RFC 8259 and nothing that two readers could understand differently.

The standard library is generous: it takes ``NaN``, keeps the last of two equal keys, lets a lone surrogate through and
raises ``RecursionError`` on deep nesting. Each of these is refused here, with a sentence that doesn't repeat the input.
U+0000 is refused too, because not every database can keep it.
"""

import json
import re
from typing import Any, NoReturn

MAX_DEPTH = 32
"""Levels of nesting. The deepest message of ours has 8."""

_SUSPICIOUS = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""Only these escapes can make a character we refuse, so only then is every text looked at."""


class BadJson(ValueError):
    """The text is not JSON as we accept it; the message says why."""


def loads(text: bytes) -> Any:
    """The value in ``text`` (UTF-8, no byte order mark); ``BadJson`` otherwise."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"byte {error.start} is not UTF-8") from None
    try:
        value = json.loads(decoded, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise BadJson(f"nested deeper than {MAX_DEPTH} levels") from None
    except BadJson:
        raise
    except ValueError:  # an integer of more than 4,300 digits: Python refuses to turn it into a number
        raise BadJson("a number has too many digits") from None
    _check(value, texts=_SUSPICIOUS.search(text) is not None or b"\0" in text)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BadJson("an object has the same key twice; which one is meant?")
    return value


def _constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON")


def _check(value: Any, *, texts: bool) -> None:
    """Depth always, characters on suspicion; level by level, so that it can't recurse too deep itself."""
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            children: Any = ()
            if isinstance(item, dict):
                children = [*item, *item.values()]
            elif isinstance(item, list):
                children = item
            elif texts and isinstance(item, str):
                _check_text(item)
            below += children if texts else [child for child in children if isinstance(child, dict | list)]
        depth += any(isinstance(item, dict | list) for item in level)
        if depth > MAX_DEPTH:
            raise BadJson(f"nested deeper than {MAX_DEPTH} levels")
        level = below


def _check_text(text: str) -> None:
    if "\0" in text:
        raise BadJson("a text has the character U+0000, which is not accepted")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadJson("a text has half of a surrogate pair") from None
