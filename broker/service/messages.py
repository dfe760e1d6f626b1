"""An agent's message, from the bytes that came to values that can be believed.

First the signature, under the one key its cluster registered; then the shape; then whose name stands in it. What a
refusal says quotes nothing of the message but where it went wrong.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from broker.domain.cluster import Cluster
from broker.domain.errors import Malformed, NotYourCluster, UntrustedMessage
from broker.domain.hearing import Word
from broker.domain.offer import Offer
from broker.kit import jose
from broker.wire.agents import LeaseReport
from broker.wire.base import Inbound
from broker.wire.mistakes import mistakes
from broker.wire.offers import Advert, AdvertisedOffer

B = TypeVar("B", bound=Inbound)


def opened(jws: str, model: type[B], typ: str, cluster: Cluster) -> B:
    """The message inside, verified first and parsed second."""
    try:
        payload = jose.verify(jws, typ=typ, jwks=[json.loads(cluster.signing_key)])
    except jose.BadSignature as error:
        raise UntrustedMessage(f"The message isn't signed by cluster {cluster.name}'s key: {error}.") from error
    if b"\\u0000" in payload or b"\0" in payload:
        raise Malformed("The message has the character U+0000, which not every database can keep.")
    try:
        message = model.model_validate_json(payload)
    except (ValidationError, RecursionError) as error:
        raise malformed(error) from error
    named: Any = getattr(message, "cluster", None)
    if named != cluster.name:
        raise NotYourCluster(named=str(named), own=cluster.name)
    return message


def malformed(error: ValidationError | RecursionError) -> Malformed:
    """Where the message isn't what it should be; without what it holds."""
    if isinstance(error, RecursionError):
        return Malformed("The message is nested too deeply.")
    errors = [
        {"pointer": "/" + "/".join(str(part)[:64] for part in where), "detail": what}
        for where, what in mistakes(error, most=20)
    ]
    first, count = errors[0], error.error_count()
    more = f" It has {count - 1} more mistakes." if count > 1 else ""
    return Malformed(f"The message can't be used: {first['pointer']} {first['detail']}.{more}", errors=errors)


def offer_rows(advert: Advert, now: datetime) -> dict[str, Offer]:
    """A row per offer, without the id that only the store knows."""
    rows: dict[str, Offer] = {}
    for offer in advert.offers:
        if offer.name in rows:
            raise Malformed(f"The advert has two offers named {offer.name}.")
        rows[offer.name] = _row(offer, now)
    return rows


def _row(offer: AdvertisedOffer, now: datetime) -> Offer:
    body = offer.model_dump_json()
    if len({device.ref("") for device in offer.devices}) != len(offer.devices):
        raise Malformed(f"Offer {offer.name} names a device twice.")
    return Offer(
        id="",
        cluster="",
        name=offer.name,
        digest=hashlib.sha256(body.encode()).hexdigest(),
        body=body,
        model=offer.kind.model,
        region=offer.place.region,
        devices=len(offer.devices),
        updated_at=now,
    )


def word(line: LeaseReport, cluster: str) -> Word:
    """A line as the domain hears it, its devices by their full references."""
    return Word(
        role=line.role,
        phase=line.phase,
        fence=line.fence,
        generation=line.generation,
        refs=frozenset(f"{cluster}/{device}" for device in line.devices),
        reason=line.reason,
        sealed_credential=line.sealed_credential,
        credential_serial=line.credential_serial,
    )
