"""An agent's message, from the bytes that came to values that can be believed.

First the signature, under the one key its cluster registered; then the shape; then whose name stands in it. What a
refusal says quotes nothing of the message but where it went wrong.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import ValidationError

from broker.domain.cluster import Cluster
from broker.domain.errors import Malformed, NotYourCluster, UntrustedMessage
from broker.domain.hearing import Word
from broker.kit import jose
from broker.wire.agents import LeaseReport
from broker.wire.base import Inbound
from broker.wire.mistakes import mistakes

B = TypeVar("B", bound=Inbound)


def opened(jws: str, model: type[B], typ: str, cluster: Cluster) -> B:
    """The message inside, verified first and parsed second."""
    message = parsed(believed(jws, typ, cluster), model)
    must_name(message, cluster)
    return message


def believed(jws: str, typ: str, cluster: Cluster) -> bytes:
    """What the cluster signed."""
    try:
        payload = jose.verify(jws, typ=typ, jwks=[json.loads(cluster.signing_key)])
    except jose.BadSignature as error:
        raise UntrustedMessage(f"The message isn't signed by cluster {cluster.name}'s key: {error}.") from error
    if b"\\u0000" in payload or b"\0" in payload:
        raise Malformed("The message has the character U+0000, which not every database can keep.")
    return payload


def parsed(payload: bytes, model: type[B]) -> B:
    """``Malformed`` says where it isn't what it should be."""
    try:
        return model.model_validate_json(payload)
    except (ValidationError, RecursionError) as error:
        raise malformed(error) from error


def must_name(message: Inbound, cluster: Cluster) -> None:
    """Nobody speaks for another."""
    named: Any = getattr(message, "cluster", None)
    if named != cluster.name:
        raise NotYourCluster(named=str(named), own=cluster.name)


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
