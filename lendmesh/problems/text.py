"""YAML or JSON to plain values, with nothing guessed, nothing lost and nothing that could blow up.

PyYAML's own loader turns ``2.40`` into a binary float, ``no`` into a boolean and ``12:30`` into a number of minutes,
lets the last of two equal keys win and follows aliases as often as they are written. So the values are made here, from
the parser's events: numbers stay decimal, only ``true``, ``false`` and ``null`` are words of their own (YAML 1.2), and
aliases, tags, repeated keys and deep nesting are refused. There is no recursion over what was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NoReturn

import yaml

from broker.kit.strict_json import MAX_DEPTH

MAX_BYTES = 8 * 1024 * 1024
"""Twenty thousand requests against two thousand offers are about five mebibytes."""
Path = tuple[int | str, ...]
"""Where something is in a document: keys, and positions in lists from 0."""

_WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,40}(?=[eE]))(?:[eE][-+]?[0-9]{1,2})?")
_ENDLESS = re.compile(r"([-+]?)\.?(?:inf|infinity)", re.IGNORECASE)
_NONE = re.compile(r"|~|null|Null|NULL")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(ValueError):
    """The text is no document of ours; the message is a sentence for whoever wrote it."""


def read(text: str) -> Any:
    """The value that ``text`` holds.

    :raises Unreadable: it is too large, neither YAML nor JSON, or uses what is not accepted here.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise Unreadable(f"it is larger than {MAX_BYTES // 2**20} MiB")
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _json(text)
        except json.JSONDecodeError as error:
            # YAML knows braces too, so this may still be YAML; where it is not, JSON was meant.
            try:
                return _Values(text).whole()
            except Unreadable:
                raise Unreadable(f"line {error.lineno}, column {error.colno}: {error.msg} (read as JSON)") from None
    return _Values(text).whole()


class Lines:
    """On which line what stands in a text; read once, and only when something is wrong."""

    def __init__(self, text: str) -> None:
        values = _Values(text, keep_lines=True)
        try:
            values.whole()
        except Unreadable:  # JSON that is not YAML too
            values.lines.clear()
        self._lines = values.lines

    def of(self, path: Path) -> int | None:
        """The line, from 1, where that begins, or where the nearest thing around it does; None where nobody knows."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)


def _json(text: str) -> Any:
    try:
        value = json.loads(
            text, parse_float=_decimal, parse_int=_whole, parse_constant=Decimal, object_pairs_hook=_object
        )
    except RecursionError:
        raise Unreadable(f"it is nested deeper than {MAX_DEPTH} levels") from None
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"it is nested deeper than {MAX_DEPTH} levels")
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Unreadable(f"{twice[:40]!r} is said twice in one place; which one is meant?")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 41:
        raise Unreadable(f"the number {digits[:20]}… has too many digits")
    return int(digits)


def _decimal(digits: str) -> Decimal:
    if not _DECIMAL.fullmatch(digits):
        raise Unreadable(f"the number {digits[:20]}… has too many digits")
    return Decimal(digits)


class _Values:
    """Values from the parser's events, with a stack of what is open instead of recursion."""

    def __init__(self, text: str, *, keep_lines: bool = False) -> None:
        self._text, self._keep_lines = text, keep_lines
        self.lines: dict[Path, int] = {}
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str | None] = []
        self._found: list[Any] = []

    def whole(self) -> Any:
        try:
            for event in self._events():
                self._take(event)
        except yaml.MarkedYAMLError as error:
            at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
            raise Unreadable(f"{at}{error.problem or 'this is not YAML'} (read as YAML)") from None
        except (yaml.YAMLError, ValueError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable("it has characters that are neither YAML nor JSON") from None
        return self._found[0] if self._found else None

    def _events(self) -> Iterator[Any]:
        return yaml.parse(self._text, Loader=_LOADER)

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"the alias *{(event.anchor or '')[:40]} is not accepted here; write the value out")
        if getattr(event, "tag", None) is not None and event.tag != "!":
            self._refuse(event, f"the tag {event.tag[:60]} is not accepted here; write the value without it")
        if isinstance(event, yaml.DocumentStartEvent) and self._found:
            self._refuse(event, "a second document begins here; one file is one problem")
        if isinstance(event, yaml.ScalarEvent):
            if self._open and isinstance(self._open[-1], dict) and self._keys[-1] is None:
                self._key(event)
            else:
                self._put(event, event.value if event.style else _plain(event.value))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if self._open and isinstance(self._open[-1], dict) and self._keys[-1] is None:
                self._refuse(event, "a key must be a word, not a list or a mapping")
            value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._put(event, value)
            self._open.append(value)
            self._keys.append(None)
            if len(self._open) > MAX_DEPTH:
                self._refuse(event, f"it is nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()
            self._keys.pop()

    def _key(self, event: yaml.ScalarEvent) -> None:
        there = self._open[-1]
        assert isinstance(there, dict)
        if event.value in there:
            self._refuse(event, f"{event.value[:40]!r} is said twice in one place; which one is meant?")
        self._keys[-1] = event.value
        # Held already, so that a key is known as said twice even while its first value is still open.
        there[event.value] = None
        self._mark(event)

    def _put(self, event: Any, value: Any) -> None:
        if not self._open:
            self._found.append(value)
            return
        there = self._open[-1]
        if isinstance(there, list):
            there.append(value)
            self._mark(event)
        else:
            key = self._keys[-1]
            assert key is not None
            there[key] = value
            self._keys[-1] = None

    def _mark(self, event: Any) -> None:
        if self._keep_lines:
            # Keys are held as soon as they are read, so the last key of each open mapping is the one being filled.
            path = tuple(
                len(there) - 1 if isinstance(there, list) else next(reversed(there), "") for there in self._open
            )
            self.lines[path] = event.start_mark.line + 1

    def _refuse(self, event: Any, what: str) -> NoReturn:
        raise Unreadable(f"line {event.start_mark.line + 1}: {what}")


def _plain(word: str) -> Any:
    """What an unquoted word stands for."""
    if _NONE.fullmatch(word):
        return None
    if word in _WORDS:
        return _WORDS[word]
    if _WHOLE.fullmatch(word):
        return int(word)
    if _DECIMAL.fullmatch(word):
        return Decimal(word)
    if endless := _ENDLESS.fullmatch(word):
        return Decimal(f"{endless[1]}Infinity")
    return word
