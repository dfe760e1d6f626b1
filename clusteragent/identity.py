"""Who this agent is: its two keys and its credential, kept where only it can read them.

The keys are made and kept *before* the agent introduces itself, and the introduction carries an Idempotency-Key made of
the token and the key: an agent that dies in between introduces itself again as the same one and hears the same
credential. In a cluster the identity is in a Secret that the chart made, empty, so that the agent needs to read and
write that one Secret and may create none.
"""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from broker.kit.jose import SealingKey, SigningKey
from broker.wire.agents import Join
from clusteragent.kube.interface import SECRETS, Kube
from clusteragent.settings import Settings
from clusteragent.uplink import HttpUplink, Uplink, pinned_ca

SECRET = "lendmesh-agent-identity"  # noqa: S105 (the name of an object)
log = structlog.get_logger("agent")


class NoIdentity(Exception):
    """The agent has no credential and can't get one; the text says what to do."""


@dataclass(frozen=True)
class Identity:
    """Everything here but the names is secret."""

    signing: SigningKey
    sealing: SealingKey
    credential: str | None = None
    issuer: str = ""
    jwks: tuple[Mapping[str, Any], ...] = ()
    ca_pem: str | None = None
    """The broker's CA, where the join token pinned it."""

    @classmethod
    def new(cls) -> "Identity":
        return cls(signing=SigningKey.generate(), sealing=SealingKey.generate())

    def to_json(self) -> str:
        return json.dumps(
            {
                "signing": self.signing.private_jwk(),
                "sealing": self.sealing.private_jwk(),
                "credential": self.credential,
                "issuer": self.issuer,
                "jwks": [dict(key) for key in self.jwks],
                "ca": self.ca_pem,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Identity":
        kept = json.loads(text)
        return cls(
            signing=SigningKey.from_private_jwk(kept["signing"]),
            sealing=SealingKey.from_private_jwk(kept["sealing"]),
            credential=kept["credential"],
            issuer=kept["issuer"],
            jwks=tuple(kept["jwks"]),
            ca_pem=kept["ca"],
        )

    def __repr__(self) -> str:
        return f"Identity(kid={self.signing.kid!r}, joined={self.credential is not None})"


class Keeper(Protocol):
    """Where an identity is kept."""

    async def load(self) -> Identity | None: ...

    async def save(self, identity: Identity) -> None: ...


class SecretKeeper:
    """In the Secret of the agent's own namespace. Raises ``KubeError``."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace

    async def load(self) -> Identity | None:
        secret = await self._kube.get(SECRETS, SECRET, self._namespace)
        kept = (secret.get("data") or {}).get("identity")
        return Identity.from_json(base64.b64decode(kept).decode()) if kept else None

    async def save(self, identity: Identity) -> None:
        secret = await self._kube.get(SECRETS, SECRET, self._namespace)
        data = {**(secret.get("data") or {}), "identity": base64.b64encode(identity.to_json().encode()).decode()}
        await self._kube.replace(SECRETS, {**secret, "data": data})


class FileKeeper:
    """In a file that only this user can read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Identity | None:
        return Identity.from_json(self._path.read_text()) if self._path.exists() else None

    async def save(self, identity: Identity) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self._path.with_name(self._path.name + ".new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(identity.to_json())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


class MemoryKeeper:
    """For a simulation: gone with the process."""

    def __init__(self) -> None:
        self._identity: Identity | None = None

    async def load(self) -> Identity | None:
        return self._identity

    async def save(self, identity: Identity) -> None:
        self._identity = identity


async def dial(settings: Settings, keeper: Keeper) -> HttpUplink:
    """A line to the broker that is really ours: by CA file, by the CA kept at joining, or by the join token's pin.

    Raises ``Unreachable``, ``Refused`` (the wrong broker) or ``OSError`` (no such CA file).
    """
    if settings.broker_ca_file is not None:
        return HttpUplink(settings.broker_url, ca_pem=settings.broker_ca_file.read_text())
    known = await keeper.load()
    if known is not None and known.credential:
        return HttpUplink(settings.broker_url, ca_pem=known.ca_pem)
    pin = pin_in(settings.token() or "")
    ca_pem = await pinned_ca(settings.broker_url, pin) if pin else None
    if ca_pem is not None:
        await keeper.save(replace(known or Identity.new(), ca_pem=ca_pem))
    return HttpUplink(settings.broker_url, ca_pem=ca_pem)


async def joined(settings: Settings, keeper: Keeper, uplink: Uplink) -> Identity:
    """The identity with which this cluster is a member; joins where it isn't yet.

    Raises ``NoIdentity``, ``Unreachable``, ``Refused``.
    """
    identity = await keeper.load()
    if identity is None:
        identity = Identity.new()
        await keeper.save(identity)
    if not identity.credential:
        token = settings.token()
        if token is None:
            raise NoIdentity(
                "this cluster has not joined yet and has no join token; make one with "
                f"`lendmesh join-token create {settings.cluster}` and give it to the agent"
            )
        answer = await uplink.join(
            Join(
                token=token,
                cluster=settings.cluster,
                signing_key=identity.signing.public_jwk(),
                sealing_key=identity.sealing.public_jwk(),
                version=settings.name_of_us,
            )
        )
        if answer.cluster != settings.cluster:
            raise NoIdentity(f"the join token is for {answer.cluster}, but this agent is set up as {settings.cluster}")
        keys = tuple(answer.jwks.get("keys", []))
        identity = replace(identity, credential=answer.credential, issuer=answer.issuer, jwks=keys)
        await keeper.save(identity)
        log.info("agent.joined", cluster=settings.cluster, tenant=answer.tenant, kid=identity.signing.kid)
    uplink.credential(identity.credential or "")
    return identity


def pin_in(token: str) -> str | None:
    """The CA pin at the end of a join token (``lmj_<random>.<pin>``), if it has one."""
    _, dot, pin = token.rpartition(".")
    return pin if dot else None
