"""Durations as people write them in Kubernetes: ``90s``, ``15m``, ``1h30m``, ``7d``.

Whole seconds, never negative. The longest is ten years, so that sums stay far from any overflow.
"""

import re
from functools import lru_cache

_PART = re.compile(r"(\d{1,10})(d|h|m|s)")
_UNIT = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
LONGEST_S = 10 * 365 * 86_400


@lru_cache(maxsize=1_024)
def parse_duration(text: str) -> int:
    """Seconds in ``text``; ``ValueError`` with a sentence for anything that isn't a duration."""
    if len(text) > 40 or not text or _PART.sub("", text):
        raise ValueError(f"{text[:40]!r} is not a duration; write it like 90s, 15m, 2h or 1h30m")
    order = [unit for _, unit in _PART.findall(text)]
    if order != sorted(set(order), key="dhms".index):
        raise ValueError(f"{text!r} names its units out of order or twice; write it like 1d12h or 1h30m")
    seconds = sum(int(number) * _UNIT[unit] for number, unit in _PART.findall(text))
    if seconds > LONGEST_S:
        raise ValueError(f"{text!r} is longer than ten years")
    return seconds


def format_duration(seconds: int) -> str:
    """The shortest way to write ``seconds``: 5400 → ``1h30m``."""
    parts = []
    for unit, size in _UNIT.items():
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
