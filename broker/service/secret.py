"""Secrets of tokens: made, shown once, and kept as a hash.

A secret has 256 random bits, so a plain SHA-256 of it is as good as any slow hash: there is nothing to guess. It is
made from a random salt and a pepper that only the broker's key file holds. So the answer to a POST that is repeated
with its Idempotency-Key can be given again from the salt, and the database alone never suffices to know a secret.
"""

import base64
import hashlib
import hmac
import json
import secrets

from broker.kit.jose import SigningKey

TOKEN, JOIN, CREDENTIAL = "lmt", "lmj", "lmc"
LONGEST = 256


def pepper_of(key: SigningKey) -> bytes:
    """A secret of the broker's own, from its first key."""
    private = json.dumps(key.private_jwk(), sort_keys=True).encode()
    return hashlib.sha256(b"lendmesh token pepper\0" + private).digest()


def new_salt() -> str:
    return secrets.token_hex(32)


def secret(kind: str, *, salt: str, pepper: bytes) -> str:
    """``lmt_…``: the same for the same salt and pepper."""
    digest = hmac.digest(pepper, f"{kind}:{salt}".encode(), "sha256")
    return f"{kind}_{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def hashed(text: str) -> str:
    """What is kept of a secret; of a join token the part before the CA's pin."""
    return hashlib.sha256(text.partition(".")[0].encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compared without telling by the time it takes how much of it was right."""
    return hmac.compare_digest(one, other)
