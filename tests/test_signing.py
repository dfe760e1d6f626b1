"""A lease is believed for what is signed, by whom, for whom and when; for nothing else."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from broker.kit import jose
from broker.kit.jose import BadKey, BadSignature, SealingKey, SigningKey
from broker.wire.leases import LeaseClaims
from broker.wire.signing import Unverified, sign_lease, verify_lease

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def claims(**changes: object) -> LeaseClaims:
    """A lease of one GPU for an hour from NOW."""
    lease = {
        "id": "lse-0000000000000001",
        "request": "req-0000000000000001",
        "lender": "b",
        "borrower": "a",
        "tenant": "research",
        "kind": {"driver": "gpu.nvidia.com", "model": "NVIDIA H100 80GB HBM3"},
        "devices": [
            {"driver": "gpu.nvidia.com", "pool": "b-1", "name": "gpu-0", "node": "b-1", "key": "GPU-1", "fence": 7}
        ],
        "price": {"amount": "2.40"},
        "terms": {"max_duration": "1d"},
        "duration": "1h",
    }
    body = {
        "iss": "https://broker",
        "sub": "a",
        "aud": ["b", "a"],
        "jti": lease["id"],
        "generation": 1,
        "iat": int(NOW.timestamp()),
        "nbf": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
        "lease": lease,
        **changes,
    }
    return LeaseClaims.model_validate(body)


def signed(lease: LeaseClaims, key: SigningKey) -> str:
    return sign_lease(lease.model_dump(exclude={"lease"}), lease.lease.model_dump_json(), key)


def test_a_signed_lease_says_offline_what_was_signed() -> None:
    """The key set is all it takes."""
    key = SigningKey.generate()
    token = signed(claims(), key)
    assert verify_lease(token, jwks=[SigningKey.generate().public_jwk(), key.public_jwk()], now=NOW) == claims()


@pytest.mark.parametrize(("now", "word"), [(NOW - timedelta(seconds=1), "begins"), (NOW + timedelta(hours=1), "ended")])
def test_a_lease_is_in_force_from_its_beginning_to_its_end_and_not_at_it(now: datetime, word: str) -> None:
    key = SigningKey.generate()
    with pytest.raises(Unverified, match=word):
        verify_lease(signed(claims(), key), jwks=[key.public_jwk()], now=now)


@pytest.mark.parametrize(
    "changes", [{"sub": "c"}, {"aud": ["a"]}, {"aud": ["a", "b", "c"]}, {"jti": "lse-0000000000000002"}]
)
def test_a_lease_that_contradicts_itself_is_not_believed(changes: dict[str, object]) -> None:
    key = SigningKey.generate()
    with pytest.raises(Unverified, match="contradicts"):
        verify_lease(signed(claims(**changes), key), jwks=[key.public_jwk()], now=NOW)


def test_a_lease_for_others_is_not_for_me() -> None:
    key = SigningKey.generate()
    with pytest.raises(Unverified, match="not for c"):
        verify_lease(signed(claims(), key), jwks=[key.public_jwk()], now=NOW, audience="c")


def forged(header: dict[str, object], payload: bytes = b"{}", signature: bytes = b"x" * 64) -> str:
    parts = (json.dumps(header).encode(), payload, signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "typ": jose.LEASE},
        {"alg": "HS256", "typ": jose.LEASE},
        {"alg": "EdDSA", "typ": jose.LEASE},
        {"alg": "ES256", "typ": jose.LEASE},
        {"alg": "Ed25519", "typ": "JWT"},
        {"alg": "Ed25519"},
        {"alg": "Ed25519", "typ": jose.LEASE, "jwk": {"kty": "OKP"}},
        {"alg": "Ed25519", "typ": jose.LEASE, "jku": "https://elsewhere"},
        {"alg": "Ed25519", "typ": jose.LEASE, "crit": ["b64"], "b64": False},
        {"alg": "Ed25519", "typ": jose.LEASE, "kid": "../../etc/passwd"},
        {"alg": "Ed25519", "typ": jose.LEASE, "kid": 7},
    ],
)
def test_no_header_chooses_the_algorithm_or_the_key(header: dict[str, object]) -> None:
    """RFC 8725 §3.1: one algorithm, and keys that the verifier brings."""
    key = SigningKey.generate()
    with pytest.raises(BadSignature):
        jose.verify(forged({"kid": key.kid, **header}), typ=jose.LEASE, jwks=[key.public_jwk()])


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "e30.e30.e30", "☃.☃.☃", "[" * 5000, "eyJ" + "W1s" * 2000])
def test_what_is_no_signed_message_is_told_so(token: str) -> None:
    with pytest.raises(BadSignature):
        jose.verify(token, typ=jose.LEASE, jwks=[SigningKey.generate().public_jwk()])


def test_one_kind_of_message_never_passes_for_another() -> None:
    """RFC 8725 §3.11."""
    key = SigningKey.generate()
    with pytest.raises(BadSignature, match="typ"):
        jose.verify(key.sign(b"{}", typ=jose.ADVERT), typ=jose.LEASE, jwks=[key.public_jwk()])


def test_what_is_sealed_only_its_key_opens() -> None:
    mine, other = SealingKey.generate(), SealingKey.generate()
    sealed = jose.seal(b"kubeconfig", to=mine.public_jwk())
    assert mine.open(sealed) == b"kubeconfig"
    assert b"kubeconfig" not in base64.urlsafe_b64decode(sealed.split(".")[3] + "==")
    with pytest.raises(BadSignature):
        other.open(sealed)
    with pytest.raises(BadSignature):
        mine.open(sealed[:-4] + "AAAA")


@pytest.mark.parametrize(
    "jwk", [{}, {"kty": "RSA"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}]
)
def test_only_whole_public_keys_of_the_right_curve_enrol(jwk: dict[str, object]) -> None:
    with pytest.raises(BadKey):
        jose.check_public_jwk(jwk, crv="Ed25519")


def test_a_private_key_is_not_taken() -> None:
    with pytest.raises(BadKey, match="private"):
        jose.check_public_jwk(SigningKey.generate().private_jwk(), crv="Ed25519")
