"""Semantic versions 2.0.0, as far as device attributes and selectors need them: parse, order, equality.

Order and equality ignore build metadata (https://semver.org, items 10 and 11).
"""

from __future__ import annotations

import re
from functools import lru_cache, total_ordering

MAX_LENGTH = 256
_NUMBER = r"(0|[1-9][0-9]*)"
_IDENT = r"[0-9A-Za-z-]+"
_SHAPE = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENT}(?:\.{_IDENT})*))?(?:\+{_IDENT}(?:\.{_IDENT})*)?")
_LOOSE = re.compile(r"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(.*)", re.ASCII)


class BadVersion(ValueError):
    """The text is no semantic version."""


@total_ordering
class Semver:
    """A version; ``key`` orders it, ``canonical`` is its text without build metadata."""

    __slots__ = ("canonical", "key", "major", "minor", "patch")

    def __init__(self, major: int, minor: int, patch: int, pre: str) -> None:
        self.major, self.minor, self.patch = major, minor, patch
        self.canonical = f"{major}.{minor}.{patch}" + (f"-{pre}" if pre else "")
        parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")] if pre else []
        self.key = (major, minor, patch, not pre, parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self.key == other.key

    def __lt__(self, other: Semver) -> bool:
        return self.key < other.key

    def __hash__(self) -> int:
        return hash(self.canonical)


@lru_cache(maxsize=2048)
def parse(text: str) -> Semver:
    """The version a text stands for; raises BadVersion for anything that is not strictly one."""
    match = _SHAPE.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise BadVersion(f"not a semantic version: {text[:80]!r}")
    pre = match[4] or ""
    if any(part.isdigit() and len(part) > 1 and part[0] == "0" for part in pre.split(".")):
        raise BadVersion(f"not a semantic version: {text!r} (leading zero)")
    numbers = [int(match[i]) for i in (1, 2, 3)]
    if max(numbers) >= 2**64:
        raise BadVersion(f"not a semantic version: {text[:80]!r} (a number is too large)")
    return Semver(numbers[0], numbers[1], numbers[2], pre)


def normalised(text: str) -> str:
    """What ``semver(text, true)`` reads in Kubernetes: a leading v, missing parts and leading zeros are mended."""
    match = _LOOSE.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        return text
    return ".".join(str(int(match[i] or 0)) for i in (1, 2, 3)) + match[4]
