"""Answers to POSTs that came with an Idempotency-Key, kept in the same transaction as what they caused."""

from __future__ import annotations

from dataclasses import asdict
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
        self.new: list[Answer] = []
        """Of this transaction."""

    def find(self, subject: str, once: Once | None) -> Answer | None:
        """The answer given before; ``IdempotencyKeyReused`` when it was to another request."""
        if once is None:
            return None
        found = next((each for each in self.new if each.key == once.key and each.subject == subject), None)
        if found is None:
            row = self._unit.ask(_FIND, {"s": subject, "k": once.key}, aside=True).one_or_none()
            found = None if row is None else Answer(**row._mapping)
        if found is not None and found.fingerprint != once.fingerprint:
            raise IdempotencyKeyReused
        return found

    def keep(self, subject: str, once: Once | None, answer: str, *, now: datetime, salt: str | None = None) -> None:
        if once is not None:
            new = Answer(subject=subject, key=once.key, fingerprint=once.fingerprint, answer=answer, at=now, salt=salt)
            self._unit.put_off(_ADD, asdict(new))
            self.new.append(new)

    def forget(self, *, before: datetime) -> int:
        return self._unit.change(_OLD, {"before": before}).rowcount
