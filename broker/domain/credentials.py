"""Tokens as the broker keeps them: never the secret, only its hash."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A person's or a program's."""

    id: str
    name: str
    tenant: str
    scopes: str
    """Separated by spaces."""
    secret_hash: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def usable(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinToken:
    """With which one cluster may join, once."""

    id: str
    cluster: str
    tenant: str
    secret_hash: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What an Idempotency-Key was answered with; a secret in it is kept as the salt it was made from."""

    subject: str
    key: str
    fingerprint: str
    answer: str
    at: datetime
    salt: str | None = None
