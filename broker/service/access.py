"""Who is who: tokens for people and programs, one-use tokens for clusters, and what a secret proves."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from broker.domain.access import ADMIN, AGENT_SCOPES, Once, Principal
from broker.domain.cluster import Cluster
from broker.domain.credentials import JoinToken, Token
from broker.domain.errors import AlreadyThere, NotFound, NotYourCluster, Unauthenticated, UntrustedMessage
from broker.domain.log import Entry
from broker.kit.jose import BadKey, check_public_jwk
from broker.kit.kept import Kept
from broker.service import secret, views
from broker.service.answers import Page
from broker.service.core import Core, page_limit, read_cursor
from broker.store.unit import Unit
from broker.wire.access import (
    JoinTokenCreated,
    JoinTokenRequest,
    JoinTokenView,
    Me,
    TokenCreated,
    TokenRequest,
    TokenView,
)
from broker.wire.agents import Join, Joined

_KNOWN = 4_096
_UNSETTLING = ("token.", "cluster.")


class Access(Core):
    """Authentication and everything that hands out a secret."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._known: Kept[str, tuple[Principal, datetime | None]] = Kept(_KNOWN)
        self.feed.hear(self._unsettle)

    async def authenticate(self, text: str) -> Principal:
        """Whoever holds this secret; ``Unauthenticated`` for one that isn't known, is over or was revoked.

        Remembered until the log says that a token or a cluster changed: a revocation counts at once.
        """
        if len(text) > secret.LONGEST:
            raise Unauthenticated
        key = secret.hashed(text)
        known = self._known.get(key)
        if known is None:
            seen = self.feed.last
            known = await self.store.read(lambda unit: self._look_up(unit, text, key))
            if seen == self.feed.last:  # else something may have been revoked while we looked
                self._known.keep(key, known)
        principal, until = known
        if until is not None and self.now() >= until:
            raise Unauthenticated("This token has expired; ask an administrator for a new one.")
        return principal

    async def me(self, p: Principal) -> Me:
        return Me(subject=p.subject, tenant=p.tenant, scopes=sorted(p.scopes), cluster=p.cluster)

    # --- tokens ----------------------------------------------------------------------------------------------------

    async def first_token(self, *, name: str, tenant: str, lifetime_s: int) -> TokenCreated:
        """An administrator's token without anybody asking: for whoever starts the broker."""
        nobody = Principal(subject="broker", tenant=tenant, scopes=frozenset({ADMIN}))
        salt = secret.new_salt()
        return await self.store.write(lambda unit: self._made(unit, nobody, name, tenant, [ADMIN], lifetime_s, salt))

    async def create_token(self, p: Principal, body: TokenRequest, once: Once | None = None) -> TokenCreated:
        """A new token; its secret is in the answer and nowhere else."""
        p.require(ADMIN)
        fresh = secret.new_salt()

        def run(unit: Unit) -> TokenCreated:
            found = unit.answers.find(p.subject, once)
            if found is not None and found.salt is not None:
                return TokenCreated(**json.loads(found.answer), secret=self._secret(secret.TOKEN, found.salt))
            scopes = [scope.value for scope in body.scopes]
            made = self._made(unit, p, body.name, body.tenant, scopes, body.lifetime, fresh)
            kept = made.model_dump_json(exclude={"secret"})
            unit.answers.keep(p.subject, once, kept, now=self.now(), salt=fresh)
            return made

        return await self.store.write(run)

    async def list_tokens(self, p: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[TokenView]:
        """Newest first."""
        p.require(ADMIN)
        most, before = page_limit(limit), read_cursor(cursor)
        seen = self.feed.last  # before the look: whoever watches from here misses nothing
        rows = await self.store.read(lambda unit: unit.tokens.page(tenant=None, before=before, limit=most + 1))
        return self._page(
            rows, seen=seen, limit=most, key=lambda row: row.id, view=lambda row: TokenView(**views.token_view(row))
        )

    async def revoke_token(self, p: Principal, token_id: str) -> TokenView:
        """It stops working at once. Again is fine."""
        p.require(ADMIN)

        def run(unit: Unit) -> TokenView:
            if unit.tokens.find(token_id) is None:
                raise NotFound("token", token_id)
            unit.tokens.revoke(token_id, now=self.now())
            unit.log.add("token.revoked", at=self.now(), subject=p.subject, data=json.dumps({"token": token_id}))
            row = unit.tokens.find(token_id)
            assert row is not None
            return TokenView(**views.token_view(row))

        return await self.store.write(run)

    # --- clusters join ---------------------------------------------------------------------------------------------

    async def create_join_token(
        self, p: Principal, body: JoinTokenRequest, once: Once | None = None
    ) -> JoinTokenCreated:
        """For one cluster, once. It carries the pin of the broker's CA, so the agent knows whom it talks to."""
        p.require(ADMIN)
        fresh = secret.new_salt()

        def run(unit: Unit) -> JoinTokenCreated:
            found = unit.answers.find(p.subject, once)
            if found is not None and found.salt is not None:
                return JoinTokenCreated(**json.loads(found.answer), secret=self._join_secret(found.salt))
            there = unit.clusters.find(body.cluster)
            if there is not None and there.revoked_at is None and there.tenant != body.tenant:
                raise AlreadyThere(f"Cluster {body.cluster} belongs to another tenant; remove it first.")
            text = self._join_secret(fresh)
            token = JoinToken(
                id=self.ids("jtk"),
                cluster=body.cluster,
                tenant=body.tenant,
                secret_hash=secret.hashed(text),
                created_at=self.now(),
                expires_at=self.now() + timedelta(seconds=body.lifetime),
            )
            unit.tokens.add_join(token)
            unit.log.add(
                "join-token.made", at=self.now(), subject=p.subject, data=json.dumps({"cluster": body.cluster})
            )
            made = JoinTokenCreated(**views.join_token_view(token), secret=text)
            unit.answers.keep(p.subject, once, made.model_dump_json(exclude={"secret"}), now=self.now(), salt=fresh)
            return made

        return await self.store.write(run)

    async def list_join_tokens(
        self, p: Principal, *, cursor: str | None = None, limit: int = 50
    ) -> Page[JoinTokenView]:
        """Newest first, without those that were revoked."""
        p.require(ADMIN)
        most, before = page_limit(limit), read_cursor(cursor)
        seen = self.feed.last  # before the look: whoever watches from here misses nothing
        rows = await self.store.read(lambda unit: unit.tokens.join_page(tenant=None, before=before, limit=most + 1))
        return self._page(
            rows,
            seen=seen,
            limit=most,
            key=lambda row: row.id,
            view=lambda row: JoinTokenView(**views.join_token_view(row)),
        )

    async def revoke_join_token(self, p: Principal, token_id: str) -> None:
        """It can't be used any more; a cluster that used it already stays."""
        p.require(ADMIN)

        def run(unit: Unit) -> None:
            if unit.tokens.find_join(token_id) is None:
                raise NotFound("join token", token_id)
            unit.tokens.revoke_join(token_id, now=self.now())

        await self.store.write(run)

    async def join(self, body: Join, once: Once | None = None) -> Joined:
        """A cluster becomes a member: its one-use token is spent, its keys are known from now on.

        A cluster that joined before and comes with a new token keeps its name, fences and leases, and gets new keys.
        """
        try:
            signing = check_public_jwk(body.signing_key, crv="Ed25519")
            sealing = check_public_jwk(body.sealing_key, crv="X25519")
        except BadKey as error:
            raise UntrustedMessage(f"The agent's key can't be accepted: {error}.") from error
        key = secret.hashed(body.token)
        subject, fresh = f"join:{key[:32]}", secret.new_salt()

        def run(unit: Unit) -> Joined:
            found = unit.answers.find(subject, once)
            if found is not None and found.salt is not None:
                return Joined(**{**json.loads(found.answer), "credential": self._secret(secret.CREDENTIAL, found.salt)})
            token = self._spend(unit, body, key)
            self._enrol(unit, body, token, json.dumps(signing), json.dumps(sealing), fresh)
            joined = Joined(
                cluster=token.cluster,
                tenant=token.tenant,
                credential=self._secret(secret.CREDENTIAL, fresh),
                issuer=self.issuer,
                jwks=self.jwks(),
                server_time=self.now(),
            )
            unit.answers.keep(subject, once, joined.model_dump_json(exclude={"credential"}), now=self.now(), salt=fresh)
            return joined

        return await self.store.write(run)

    def _spend(self, unit: Unit, body: Join, key: str) -> JoinToken:
        token = unit.tokens.join_by_secret(key)
        now = self.now()
        if token is None or not secret.same(token.secret_hash, key) or token.revoked_at is not None:
            raise Unauthenticated("This join token isn't known; ask an administrator for a new one.")
        if token.cluster != body.cluster:
            raise NotYourCluster(named=body.cluster, own=token.cluster)
        if now >= token.expires_at:
            raise Unauthenticated("This join token has expired; ask an administrator for a new one.")
        if not unit.tokens.use_join(token.id, now=now):
            raise Unauthenticated("This join token was used already; ask an administrator for a new one.")
        return token

    def _enrol(self, unit: Unit, body: Join, token: JoinToken, signing: str, sealing: str, salt: str) -> None:
        now = self.now()
        values: dict[str, Any] = {
            "tenant": token.tenant,
            "signing_key": signing,
            "sealing_key": sealing,
            "credential_hash": secret.hashed(self._secret(secret.CREDENTIAL, salt)),
            "version": body.version,
            "joined_at": now,
            "last_seen_at": now,
        }
        there = unit.clusters.find(body.cluster)
        if there is None:
            unit.clusters.add(Cluster(name=body.cluster, **values))
        elif there.revoked_at is None and there.tenant != token.tenant:
            raise AlreadyThere(f"Cluster {body.cluster} belongs to another tenant; remove it first.")
        else:
            if there.tenant != token.tenant:
                for policy in unit.policies.of(body.cluster):  # another tenant's: neither to see nor to spend from
                    unit.policies.drop(policy.cluster, policy.name)
            # New keys: messages signed by the old ones are worth nothing, so their numbers need not be remembered.
            unit.clusters.set(
                body.cluster,
                **values,
                revoked_at=None,
                resynced=False,
                silent=False,
                advert_sequence=0,
                report_sequence=0,
            )
        unit.log.add(
            "cluster.joined", at=now, subject=f"cluster:{body.cluster}", cluster=body.cluster, tenant=token.tenant
        )

    # --- inside ----------------------------------------------------------------------------------------------------

    def _look_up(self, unit: Unit, text: str, key: str) -> tuple[Principal, datetime | None]:
        if text.startswith(f"{secret.CREDENTIAL}_"):
            cluster = unit.clusters.by_credential(key)
            if cluster is None or not secret.same(cluster.credential_hash, key) or cluster.revoked_at is not None:
                raise Unauthenticated
            name = cluster.name
            return Principal(subject=f"cluster:{name}", tenant=cluster.tenant, scopes=AGENT_SCOPES, cluster=name), None
        token = unit.tokens.by_secret(key)
        if token is None or not secret.same(token.secret_hash, key) or token.revoked_at is not None:
            raise Unauthenticated
        scopes = frozenset(token.scopes.split())
        return Principal(subject=f"token:{token.id}", tenant=token.tenant, scopes=scopes), token.expires_at

    def _unsettle(self, entries: list[Entry]) -> None:
        if any(entry.type.startswith(_UNSETTLING) for entry in entries):
            self._known.clear()

    def _made(
        self, unit: Unit, p: Principal, name: str, tenant: str, scopes: list[str], lifetime_s: int, salt: str
    ) -> TokenCreated:
        text = self._secret(secret.TOKEN, salt)
        now = self.now()
        token = Token(
            id=self.ids("tok"),
            name=name,
            tenant=tenant,
            scopes=" ".join(sorted(set(scopes))),
            secret_hash=secret.hashed(text),
            created_at=now,
            expires_at=now + timedelta(seconds=lifetime_s),
        )
        unit.tokens.add(token)
        unit.log.add("token.made", at=now, subject=p.subject, tenant=tenant, data=json.dumps({"token": token.id}))
        return TokenCreated(**views.token_view(token), secret=text)

    def _secret(self, kind: str, salt: str) -> str:
        return secret.secret(kind, salt=salt, pepper=self._pepper)

    def _join_secret(self, salt: str) -> str:
        text = self._secret(secret.JOIN, salt)
        return f"{text}.{self.ca_pin}" if self.ca_pin else text
