"""What every noun of the service stands on: the store, the clock, the ids, the keys, the rules, the news."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from broker.domain.access import Once, Principal
from broker.domain.errors import BadCursor
from broker.domain.placing import Solve
from broker.domain.rules import Rules
from broker.kit.clock import Clock, NewId, new_id, utc_now
from broker.kit.jose import SigningKey, key_set
from broker.service.answers import Page
from broker.service.feed import Feed
from broker.service.market import Market
from broker.service.secret import pepper_of
from broker.store.engine import Store
from broker.store.unit import Unit

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
R = TypeVar("R")

LONGEST_PAGE = 500


def default_solve() -> Solve:
    """The optimizer, loaded when first needed."""
    from optimizer.solve import solve

    return solve


class Core:
    """The shared ground; ``Broker`` is made of one subclass per noun."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Sequence[SigningKey],
        issuer: str,
        ca_pin: str = "",
        rules: Rules | None = None,
        clock: Clock = utc_now,
        ids: NewId = new_id,
        solve: Solve | None = None,
    ) -> None:
        """``keys``: the first signs, all verify. ``ca_pin``: the first 32 hex digits of the CA's SHA-256."""
        self.store = store
        self.keys = list(keys)
        self.issuer = issuer
        self.ca_pin = ca_pin
        self.rules = rules or Rules()
        self.now = clock
        self.ids = ids
        self.solve = solve or default_solve()
        self.market = Market()
        self.feed = Feed(store)
        self.solving: set[str] = set()
        """Requests that a solve is about at this moment."""
        self._pepper = pepper_of(self.keys[0])

    async def start(self) -> None:
        """Call once. Unless another broker was there all the time, every lender must say first what it knows."""
        if self.store.first:
            await self.store.write(lambda unit: unit.clusters.recover())
        await self.feed.start()

    async def stop(self) -> None:
        """End what runs in the background; the store is its owner's to close."""
        await self.feed.stop()

    async def ready(self) -> str | None:
        """None when it can serve; otherwise why not."""
        try:
            await self.store.read(lambda unit: unit.revision)
        except Exception as error:
            return f"The database doesn't answer ({type(error).__name__})."
        return None

    def jwks(self) -> dict[str, Any]:
        """The key set under which every lease verifies offline."""
        return key_set(self.keys)

    # --- one effect, however often it is asked for -----------------------------------------------------------------

    async def _once(self, p: Principal, once: Once | None, model: type[M], job: Callable[[Unit], M]) -> M:
        """Run ``job``, or give again what it gave when this Idempotency-Key came before."""

        def run(unit: Unit) -> M:
            found = unit.answers.find(p.subject, once)
            if found is not None:
                return model.model_validate_json(found.answer)
            answer = job(unit)
            if once is not None:
                unit.answers.keep(p.subject, once, answer.model_dump_json(), now=self.now())
            return answer

        return await self.store.write(run)

    # --- pages -----------------------------------------------------------------------------------------------------

    def _page(
        self, rows: list[R], *, seen: int, limit: int, key: Callable[[R], str], view: Callable[[R], T]
    ) -> Page[T]:
        """``rows`` holds one more than ``limit`` where there is more; ``seen``: the revision before they were read."""
        cursor = write_cursor(key(rows[limit - 1])) if len(rows) > limit else None
        return Page([view(row) for row in rows[:limit]], cursor, seen)


def write_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str | None:
    """The key a cursor stands for; ``BadCursor`` for a text that is none."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise BadCursor from error
    if not text or len(text) > 200 or not text.isprintable():
        raise BadCursor
    return text


def page_limit(limit: int) -> int:
    """Between 1 and the longest page."""
    return max(1, min(limit, LONGEST_PAGE))
