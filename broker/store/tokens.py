"""Statements about tokens and join tokens; both are found by the hash of their secret alone."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update

from broker.domain.credentials import JoinToken, Token
from broker.store.tables import join_tokens, tokens

if TYPE_CHECKING:
    from broker.store.unit import Unit

_BY_SECRET = select(tokens).where(tokens.c.secret_hash == bindparam("h"))
_BY_ID = select(tokens).where(tokens.c.id == bindparam("i"))
_ADD = insert(tokens)
_REVOKE = (
    update(tokens).where(tokens.c.id == bindparam("i"), tokens.c.revoked_at.is_(None)).values(revoked_at=bindparam("t"))
)
_ANY = select(tokens.c.id).limit(1)
_JOIN_BY_SECRET = select(join_tokens).where(join_tokens.c.secret_hash == bindparam("h"))
_JOIN_BY_ID = select(join_tokens).where(join_tokens.c.id == bindparam("i"))
_JOIN_ADD = insert(join_tokens)
_JOIN_USE = (
    update(join_tokens)
    .where(join_tokens.c.id == bindparam("i"), join_tokens.c.used_at.is_(None))
    .values(used_at=bindparam("t"))
)
_JOIN_REVOKE = (
    update(join_tokens)
    .where(join_tokens.c.id == bindparam("i"), join_tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("t"))
)


class Tokens:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def by_secret(self, secret_hash: str) -> Token | None:
        row = self._unit.ask(_BY_SECRET, {"h": secret_hash}).one_or_none()
        return None if row is None else Token(**row._mapping)

    def find(self, token_id: str) -> Token | None:
        row = self._unit.ask(_BY_ID, {"i": token_id}).one_or_none()
        return None if row is None else Token(**row._mapping)

    def any(self) -> bool:
        return self._unit.ask(_ANY).one_or_none() is not None

    def page(self, *, tenant: str | None, before: str | None, limit: int) -> list[Token]:
        query = select(tokens).order_by(tokens.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(tokens.c.tenant == tenant)
        if before is not None:
            query = query.where(tokens.c.id < before)
        return [Token(**row._mapping) for row in self._unit.ask(query)]

    def add(self, token: Token) -> None:
        self._unit.change(_ADD, asdict(token))

    def revoke(self, token_id: str, *, now: datetime) -> None:
        self._unit.change(_REVOKE, {"i": token_id, "t": now})

    def join_by_secret(self, secret_hash: str) -> JoinToken | None:
        row = self._unit.ask(_JOIN_BY_SECRET, {"h": secret_hash}).one_or_none()
        return None if row is None else JoinToken(**row._mapping)

    def find_join(self, token_id: str) -> JoinToken | None:
        row = self._unit.ask(_JOIN_BY_ID, {"i": token_id}).one_or_none()
        return None if row is None else JoinToken(**row._mapping)

    def join_page(self, *, tenant: str | None, before: str | None, limit: int) -> list[JoinToken]:
        query = (
            select(join_tokens).where(join_tokens.c.revoked_at.is_(None)).order_by(join_tokens.c.id.desc()).limit(limit)
        )
        if tenant is not None:
            query = query.where(join_tokens.c.tenant == tenant)
        if before is not None:
            query = query.where(join_tokens.c.id < before)
        return [JoinToken(**row._mapping) for row in self._unit.ask(query)]

    def add_join(self, token: JoinToken) -> None:
        self._unit.change(_JOIN_ADD, asdict(token))

    def use_join(self, token_id: str, *, now: datetime) -> bool:
        """False: somebody used it first."""
        return self._unit.change(_JOIN_USE, {"i": token_id, "t": now}).rowcount == 1

    def revoke_join(self, token_id: str, *, now: datetime) -> None:
        self._unit.change(_JOIN_REVOKE, {"i": token_id, "t": now})
