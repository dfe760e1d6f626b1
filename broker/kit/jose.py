"""What is signed, and what is sealed: the only module that knows joserfc.

*Signed*: a JWS in compact form (RFC 7515) with ``alg: Ed25519`` (RFC 9864) and a ``typ`` of its own for every kind of
message, so that an advert can never pass for a lease (RFC 8725 §3.11). No header can choose the key or the algorithm:
whoever verifies brings the keys. *Sealed*: a JWE in compact form to an agent's X25519 key (RFC 7516, RFC 8037), which
carries a kubeconfig past a broker that cannot read it.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

ALGORITHM = "Ed25519"
LEASE = "lease+jwt"
ADVERT = "advert+jws"
REPORT = "report+jws"
MAX_LEASE_BYTES = 512 * 1024
"""A lease of 8 devices is about 3 kB, one of 1,024 (the most) about 200 kB."""

_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
)
"""Encodings of the points of small order on edwards25519: under such a key one signature fits many messages."""


class BadSignature(Exception):
    """The message was not signed by the key it should have been signed by."""


class BadKey(Exception):
    """This is not a usable public key."""


class SigningKey:
    """An Ed25519 private key with its key id (the RFC 7638 thumbprint)."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self.kid = key.thumbprint()

    @classmethod
    def generate(cls) -> "SigningKey":
        return cls(OKPKey.generate_key("Ed25519"))

    @classmethod
    def from_private_jwk(cls, jwk: Mapping[str, Any]) -> "SigningKey":
        return cls(OKPKey.import_key(dict(jwk)))

    def private_jwk(self) -> dict[str, Any]:
        """Secret. For the key file or the agent's own Secret, nowhere else."""
        return dict(self._key.as_dict(private=True))

    def public_jwk(self) -> dict[str, Any]:
        return {**self._key.as_dict(private=False), "kid": self.kid, "alg": ALGORITHM, "use": "sig"}

    def sign(self, payload: bytes, *, typ: str) -> str:
        """A compact JWS over exactly these bytes."""
        header = {"alg": ALGORITHM, "typ": typ, "kid": self.kid}
        return jws.serialize_compact(header, payload, self._key, algorithms=[ALGORITHM])


class SealingKey:
    """An X25519 private key: what was sealed to its public half, only it can open."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> "SealingKey":
        return cls(OKPKey.generate_key("X25519"))

    @classmethod
    def from_private_jwk(cls, jwk: Mapping[str, Any]) -> "SealingKey":
        return cls(OKPKey.import_key(dict(jwk)))

    def private_jwk(self) -> dict[str, Any]:
        """Secret, as above."""
        return dict(self._key.as_dict(private=True))

    def public_jwk(self) -> dict[str, Any]:
        return {**self._key.as_dict(private=False), "use": "enc"}

    def open(self, sealed: str) -> bytes:
        """What was sealed; ``BadSignature`` when it was not sealed to this key or was changed on the way."""
        try:
            plain = jwe.decrypt_compact(sealed, self._key, algorithms=_SEAL).plaintext
        except (JoseError, ValueError) as error:
            raise BadSignature("this was not sealed to this agent's key, or was changed on the way") from error
        if plain is None:
            raise BadSignature("this was not sealed to this agent's key, or was changed on the way")
        return plain


_SEAL = ["ECDH-ES+A256KW", "A256GCM"]


def seal(plain: bytes, *, to: Mapping[str, Any]) -> str:
    """``plain`` as a compact JWE that only the holder of ``to``'s private half can open."""
    key = OKPKey.import_key(dict(to))
    return jwe.encrypt_compact({"alg": _SEAL[0], "enc": _SEAL[1]}, plain, key, algorithms=_SEAL)


def check_public_jwk(jwk: Mapping[str, Any], *, crv: str) -> dict[str, Any]:
    """The public half of ``jwk``, alone; ``BadKey`` for a private, malformed or small-order key (RFC 8032 §5.1.7)."""
    if "d" in jwk:
        raise BadKey("this is a private key; send the public half only")
    if jwk.get("kty") != "OKP" or jwk.get("crv") != crv:
        raise BadKey(f"a key of type OKP on curve {crv} is needed")
    try:
        key = OKPKey.import_key({"kty": "OKP", "crv": crv, "x": str(jwk.get("x"))})
        raw = key.public_key.public_bytes_raw()
    except (JoseError, ValueError, TypeError) as error:
        raise BadKey(f"x is not a public key on curve {crv}") from error
    if crv == "Ed25519" and raw in _SMALL_ORDER:
        raise BadKey("this point has a small order: any message would verify under it")
    if crv == "X25519":
        try:
            seal(b"", to={"kty": "OKP", "crv": crv, "x": str(jwk["x"])})
        except ValueError as error:  # RFC 7748 §6.1: the shared secret would be all zeros
            raise BadKey("this point has a small order: nothing can be sealed to it") from error
    return dict(key.as_dict(private=False))


def verify(token: str, *, typ: str, jwks: Sequence[Mapping[str, Any]], limit: int = 4 * 1024 * 1024) -> bytes:
    """The signed bytes of ``token``, or ``BadSignature`` with a sentence that says what is wrong with it."""
    if len(token) > limit:
        raise BadSignature(f"the signed message is longer than {limit} bytes")
    header = unverified_header(token)
    if header.get("typ") != typ:
        raise BadSignature(f"typ is {header.get('typ')!r}, but {typ!r} is needed here")
    if header.get("alg") != ALGORITHM:
        raise BadSignature(f"alg is {header.get('alg')!r}; only {ALGORITHM} is accepted")
    if unknown := header.keys() - {"typ", "alg", "kid"}:
        raise BadSignature(f"the header has {', '.join(sorted(unknown))}, which is not accepted")
    try:
        keys = dict(_public(str(jwk["x"])) for jwk in jwks)
        key = keys.get(str(header.get("kid")))
        if key is None:
            raise BadSignature(f"no key with kid {str(header.get('kid'))[:64]!r} is in the key set")
        return jws.deserialize_compact(token, key, registry=_registry(limit)).payload
    except (JoseError, ValueError, KeyError) as error:
        raise BadSignature("the signature does not fit the message") from error


@lru_cache(maxsize=4_096)
def _public(x: str) -> tuple[str, OKPKey]:
    """The key with this ``x``, by its id."""
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})
    return key.thumbprint(), key


def _registry(limit: int) -> jws.JWSRegistry:
    """The one algorithm, and our limit instead of joserfc's own (128,000 bytes: an advert of 900 devices)."""
    registry = jws.JWSRegistry(algorithms=[ALGORITHM])
    registry.max_payload_length = limit
    return registry


def unverified_header(token: str) -> Mapping[str, Any]:
    """The protected header before anything is believed."""
    from joserfc.util import urlsafe_b64decode

    try:
        header = json.loads(urlsafe_b64decode(token.split(".", 1)[0].encode("ascii")))
    except (ValueError, RecursionError) as error:
        raise BadSignature("this is not a signed message in JWS compact form") from error
    if not isinstance(header, dict):
        raise BadSignature("this is not a signed message in JWS compact form")
    return header


def key_set(keys: Sequence[SigningKey]) -> dict[str, Any]:
    """The public key set (RFC 7517) under which every lease can be verified offline."""
    return {"keys": [key.public_jwk() for key in keys]}


__all__ = [
    "ADVERT",
    "LEASE",
    "REPORT",
    "BadKey",
    "BadSignature",
    "SealingKey",
    "SigningKey",
    "check_public_jwk",
    "key_set",
    "seal",
    "unverified_header",
    "verify",
]
