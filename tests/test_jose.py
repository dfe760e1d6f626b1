"""Signed messages: as long as ours may be, and not one byte changed."""

from __future__ import annotations

import pytest

from broker.kit import jose

ADVERT_OF_20_000_DEVICES = 2_900_000


@pytest.mark.parametrize("size", [2, 130_000, ADVERT_OF_20_000_DEVICES])
def test_a_signed_message_of_any_length_we_send_is_believed_and_no_longer_one(size: int) -> None:
    key = jose.SigningKey.generate()
    token = key.sign(b"x" * size, typ=jose.ADVERT)
    assert jose.verify(token, typ=jose.ADVERT, jwks=[key.public_jwk()]) == b"x" * size
    with pytest.raises(jose.BadSignature, match="longer than"):
        jose.verify(token, typ=jose.ADVERT, jwks=[key.public_jwk()], limit=len(token) - 1)


def test_a_changed_message_another_type_or_another_key_is_not_believed() -> None:
    key = jose.SigningKey.generate()
    header, payload, signature = key.sign(b"eight devices", typ=jose.LEASE).split(".")
    other = key.sign(b"eight hundred", typ=jose.LEASE).split(".")[1]
    with pytest.raises(jose.BadSignature, match="does not fit"):
        jose.verify(f"{header}.{other}.{signature}", typ=jose.LEASE, jwks=[key.public_jwk()])
    whole = f"{header}.{payload}.{signature}"
    with pytest.raises(jose.BadSignature, match="typ is 'lease"):
        jose.verify(whole, typ=jose.ADVERT, jwks=[key.public_jwk()])
    with pytest.raises(jose.BadSignature, match="no key with kid"):
        jose.verify(whole, typ=jose.LEASE, jwks=[jose.SigningKey.generate().public_jwk()])
