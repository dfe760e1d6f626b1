"""Answers to POSTs that came with an Idempotency-Key, kept in the same transaction as what they caused."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select

from broker.domain.access import Once
from broker.domain.credentials import Answer
from broker.domain.errors import IdempotencyKeyReused
from broker.store.tables import answers

if TYPE_CHECKING:
    from broker.store.unit import Unit

_FIND = select(answers).where(answers.c.subject == bindparam("s"), answers.c.key == bindparam("k"))
_ADD = insert(answers)
_OLD = delete(answers).where(answers.c.at < bindparam("before"))


class Answers:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def find(self, subject: str, once: Once | None) -> Answer | None:
        """The answer given before; ``IdempotencyKeyReused`` when it was to another request."""
        if once is None:
            return None
        row = self._unit.ask(_FIND, {"s": subject, "k": once.key}).one_or_none()
        if row is None:
            return None
        if row.fingerprint != once.fingerprint:
            raise IdempotencyKeyReused
        return Answer(**row._mapping)

    def keep(self, subject: str, once: Once | None, answer: str, *, now: datetime, salt: str | None = None) -> None:
        if once is not None:
            row = {"subject": subject, "key": once.key, "fingerprint": once.fingerprint}
            self._unit.change(_ADD, {**row, "answer": answer, "at": now, "salt": salt})

    def forget(self, *, before: datetime) -> int:
        return self._unit.change(_OLD, {"before": before}).rowcount
