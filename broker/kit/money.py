"""Money is a whole number of micro-units of US dollars, or a ``Decimal``; never a float."""

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache

MICROS = 1_000_000
_WRITTEN = re.compile(r"[0-9]{1,10}(\.[0-9]{1,40})?")
LARGEST = Decimal(1_000_000_000)
"""US dollars: the largest sum. A thousand devices for a month cost more than a million."""
DEAREST_MICROS = 10_000 * MICROS
"""µUSD per device-hour. Above it a price is a mistake (of the unit, mostly), and the optimizer doesn't count so far."""


def to_micros(amount: Decimal | str) -> int:
    """``"2.40"`` → ``2_400_000``; ``ValueError`` with a sentence when it is no amount we accept."""
    try:
        number = Decimal(amount)
    except InvalidOperation:
        raise ValueError(f"{str(amount)[:40]!r} is not an amount of money; write it like 2.40") from None
    if not number.is_finite() or number < 0:
        raise ValueError(f"{str(amount)[:40]!r}: an amount of money is zero or more, and finite")
    if number > LARGEST:
        raise ValueError(f"{str(amount)[:40]!r} is more than {LARGEST}; is the unit right?")
    if isinstance(amount, str) and not _WRITTEN.fullmatch(amount):
        raise ValueError(f"{amount[:40]!r}: write an amount with digits and a point, like 2.40")
    micros = number * MICROS
    if micros != micros.to_integral_value():
        raise ValueError(f"{str(amount)[:40]!r} is finer than a millionth of a dollar")
    return int(micros)


@lru_cache(maxsize=8_192)
def from_micros(micros: int) -> Decimal:
    """``2_400_000`` → ``Decimal("2.40")``; at least two decimals, no trailing zeros beyond them."""
    number = (Decimal(micros) / MICROS).normalize()
    exponent = number.as_tuple().exponent
    return number if isinstance(exponent, int) and exponent < -2 else number.quantize(Decimal("0.01"))


def cost_micros(*, price_micros: int, devices: int, seconds: int) -> int:
    """Cost of ``devices`` for ``seconds`` at a price per device-hour, rounded up to a whole micro-dollar."""
    return -(-price_micros * devices * seconds // 3_600)
