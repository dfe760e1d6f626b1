"""Who may do what: tokens, joins, tenants. What isn't yours isn't there."""

from __future__ import annotations

import pytest

from broker.domain.access import Once, Principal
from broker.domain.errors import (
    AlreadyThere,
    IdempotencyKeyReused,
    MissingScope,
    NotFound,
    NotYourCluster,
    Unauthenticated,
    UntrustedMessage,
)
from broker.kit.jose import SealingKey, SigningKey
from broker.service import secret
from broker.wire.access import JoinTokenRequest, Scope, TokenRequest
from broker.wire.agents import Join
from broker.wire.burst import BurstPolicySpec
from broker.wire.leases import Reclaim, Renewal, Revocation
from tests.world import ADMIN, World, devices, offer, pair, wish

HOUR = Renewal.model_validate({"duration": "2h"})


def token(**fields: object) -> TokenRequest:
    values = {"name": "ci", "tenant": "team-a", "scopes": ["read"], **fields}
    return TokenRequest.model_validate(values)


async def test_a_secret_proves_who_one_is_until_it_is_revoked_or_over(here: World) -> None:
    made = await here.broker.create_token(ADMIN, token(lifetime="1h"))
    who = await here.broker.authenticate(made.secret)
    assert (who.tenant, who.scopes, who.cluster) == ("team-a", frozenset({"read"}), None)
    assert (await here.broker.me(who)).subject == f"token:{made.id}"

    await here.broker.revoke_token(ADMIN, made.id)
    with pytest.raises(Unauthenticated):
        await here.broker.authenticate(made.secret)

    other = await here.broker.create_token(ADMIN, token(lifetime="1h"))
    await here.broker.authenticate(other.secret)
    here.clock.advance(hours=1)
    with pytest.raises(Unauthenticated, match="expired"):
        await here.broker.authenticate(other.secret)


@pytest.mark.parametrize("text", ["", "lmt_", "lmt_guess", "lmc_guess", "x" * 100_000, "lmt_\x00", "lmt_é"])
async def test_what_is_no_secret_proves_nothing(here: World, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await here.broker.authenticate(text)


async def test_no_secret_is_kept_anywhere(here: World) -> None:
    made = await here.broker.create_token(ADMIN, token(), Once(key="k1", fingerprint="f"))
    agent = await here.agent("a")
    again = await here.broker.create_token(ADMIN, token(), Once(key="k1", fingerprint="f"))
    assert again == made
    for table in ("tokens", "clusters", "join_tokens", "answers", "events"):
        rows = await here.store.read(lambda unit, table=table: str(unit.ask(_all(table)).all()))
        assert made.secret not in rows
        assert agent.credential not in rows
        assert "lmj_" not in rows


def _all(table: str):
    from sqlalchemy import text

    return text(f"SELECT * FROM {table}")


async def test_only_an_administrator_makes_tokens(here: World) -> None:
    user = await here.user("team-a")
    for call in (
        here.broker.create_token(user, token()),
        here.broker.create_join_token(user, JoinTokenRequest(cluster="x", tenant="team-a")),
        here.broker.list_tokens(user),
        here.broker.remove_cluster(user, "a"),
        here.broker.revoke(user, "lse-1", Revocation(reason="")),
    ):
        with pytest.raises(MissingScope):
            await call


async def test_a_join_token_works_once_for_its_cluster_and_not_for_long(here: World) -> None:
    async def attempt(cluster: str, text: str, once: Once | None = None):
        body = Join(
            token=text,
            cluster=cluster,
            signing_key=SigningKey.generate().public_jwk(),
            sealing_key=SealingKey.generate().public_jwk(),
        )
        return await here.broker.join(body, once)

    made = await here.broker.create_join_token(ADMIN, JoinTokenRequest(cluster="x", tenant="team-x"))
    with pytest.raises(NotYourCluster):
        await attempt("y", made.secret)
    once = Once(key="join", fingerprint="same")
    first = await attempt("x", made.secret, once)
    assert (await attempt("x", made.secret, once)).credential == first.credential
    with pytest.raises(Unauthenticated, match="used already"):
        await attempt("x", made.secret)
    with pytest.raises(Unauthenticated):
        await attempt("x", made.secret + "tampered.")

    late = await here.broker.create_join_token(ADMIN, JoinTokenRequest(cluster="z", tenant="team-x"))
    here.clock.advance(hours=2)
    with pytest.raises(Unauthenticated, match="expired"):
        await attempt("z", late.secret)

    revoked = await here.broker.create_join_token(ADMIN, JoinTokenRequest(cluster="z", tenant="team-x"))
    await here.broker.revoke_join_token(ADMIN, revoked.id)
    with pytest.raises(Unauthenticated):
        await attempt("z", revoked.secret)


async def test_a_name_that_belongs_to_another_tenant_is_not_given_away(here: World) -> None:
    await here.agent("a")
    with pytest.raises(AlreadyThere):
        await here.broker.create_join_token(ADMIN, JoinTokenRequest(cluster="a", tenant="team-z"))


async def test_a_key_under_which_anything_verifies_cannot_enrol(here: World) -> None:
    made = await here.broker.create_join_token(ADMIN, JoinTokenRequest(cluster="x", tenant="team-x"))
    small = {"kty": "OKP", "crv": "Ed25519", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    body = Join(token=made.secret, cluster="x", signing_key=small, sealing_key=SealingKey.generate().public_jwk())
    with pytest.raises(UntrustedMessage, match="small order"):
        await here.broker.join(body)
    private = SigningKey.generate().private_jwk()
    with pytest.raises(UntrustedMessage, match="private"):
        await here.broker.join(body.model_copy(update={"signing_key": private}))


async def test_a_key_to_which_nothing_can_be_sealed_cannot_enrol(here: World) -> None:
    made = await here.broker.create_join_token(ADMIN, JoinTokenRequest(cluster="x", tenant="team-x"))
    zero = {"kty": "OKP", "crv": "X25519", "x": "A" * 43}
    body = Join(token=made.secret, cluster="x", signing_key=SigningKey.generate().public_jwk(), sealing_key=zero)
    with pytest.raises(UntrustedMessage, match="small order"):
        await here.broker.join(body)


async def test_a_cluster_that_joins_again_has_new_keys_and_the_old_ones_are_worth_nothing(here: World) -> None:
    old = await here.agent("a")
    new = await here.agent("a")
    with pytest.raises(Unauthenticated):
        await here.broker.authenticate(old.credential)
    with pytest.raises(UntrustedMessage):
        await old.report(resync=True)
    assert (await new.report()).applied


async def test_a_removed_cluster_is_out_at_once_and_its_leases_end(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    view = await here.broker.remove_cluster(ADMIN, "b")
    assert view.state == "Revoked"
    with pytest.raises(Unauthenticated):
        await here.broker.authenticate(lender.credential)
    with pytest.raises(Unauthenticated):
        await lender.report(resync=True)
    assert (await here.broker.offers(user)).items == []
    ended = await here.broker.lease(user, lease)
    assert (ended.state, ended.ending) == ("Draining", "revoked")
    assert [each.want for each in await borrower.desired()] == ["gone"]


async def test_what_a_removed_lender_had_only_promised_is_looked_for_elsewhere(here: World) -> None:
    _, _ = await pair(here)
    other = await here.agent("c")
    user = await here.user("team-a")
    asked = await here.submitted(user, wish())
    await other.advertise(offer(devices("m1"), price="2.90"))
    await here.broker.remove_cluster(ADMIN, "b")
    await here.broker.place()
    again = await here.broker.request(user, asked.id)
    assert again.placement is not None
    assert (again.attempts, again.placement.cluster) == (2, "c")
    await here.broker.remove_cluster(ADMIN, "a")
    assert [each.want for each in await other.desired()] == ["gone"]
    assert (await here.broker.request(user, asked.id)).state == "Closed"


async def test_what_a_removed_cluster_asked_for_is_cancelled_even_where_it_was_just_being_placed(here: World) -> None:
    lender, _ = await here.agent("b"), await here.agent("a")
    user = await here.user("team-a")
    asked = await here.submitted(user, wish())
    await lender.advertise(offer(devices("n1")))
    opened, snapshot, policies, spent = await here.store.read(here.broker.look)
    plan = here.broker.plan(opened, snapshot, policies, spent)
    grants, others = here.broker.sort_out(opened, plan, snapshot)
    await here.broker.remove_cluster(ADMIN, "a")
    done = await here.store.write(lambda unit: here.broker.commit(unit, grants, others, snapshot))
    assert (len(grants), done.placed) == (1, [])
    view = await here.broker.request(user, asked.id)
    assert (view.state, view.message) == ("Cancelled", "Cluster a was removed from the federation.")


async def test_a_name_that_goes_to_another_tenant_takes_nothing_of_the_first_along(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    tiers = [{"name": "any", "price_cap": {"amount": "3.00"}}]
    await here.broker.put_burst_policy(user, "a", "nights", BurstPolicySpec.model_validate({"tiers": tiers}))
    asked = await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    await here.broker.remove_cluster(ADMIN, "a")
    new = await here.agent("a", tenant="team-z")
    for call in (
        here.broker.request(new.principal, asked.id),
        here.broker.lease(new.principal, lease),
        here.broker.burst_policy(user, "a", "nights"),
        here.broker.burst_policy(new.principal, "a", "nights"),
    ):
        with pytest.raises(NotFound):
            await call
    assert (await here.broker.lease(user, lease)).borrower == "a", "its own tenant still sees it"


async def test_what_is_anothers_is_not_there_whatever_one_asks_of_it(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    request = await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    stranger = await here.user("team-z")
    third = await here.agent("z")
    for who in (stranger, third.principal):
        for call in (
            here.broker.request(who, request.id),
            here.broker.cancel(who, request.id),
            here.broker.lease(who, lease),
            here.broker.return_lease(who, lease),
            here.broker.renew(who, lease, HOUR),
            here.broker.reclaim(who, lease, Reclaim()),
            here.broker.cluster(who, "a"),
        ):
            with pytest.raises(NotFound):
                await call
        assert (await here.broker.leases(who)).items == []
        assert (await here.broker.requests(who)).items == []
    with pytest.raises(NotFound, match="cluster 'a'"):
        await here.broker.submit(stranger, wish())
    with pytest.raises(NotYourCluster):
        await here.broker.submit(third.principal, wish())
    assert [view.name for view in (await here.broker.clusters(stranger)).items] == ["z"]
    assert len((await here.broker.leases(ADMIN)).items) == 1


async def test_the_lender_may_look_and_reclaim_but_neither_return_nor_renew(here: World) -> None:
    lender, borrower = await pair(here)
    await here.submitted(await here.user("team-a"), wish())
    lease = await here.lend(lender, borrower)
    landlord = await here.user("team-b")
    assert (await here.broker.lease(landlord, lease)).id == lease
    for call in (here.broker.return_lease(landlord, lease), here.broker.renew(landlord, lease, HOUR)):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(NotFound):
        await here.broker.reclaim(await here.user("team-a"), lease, Reclaim())
    view = await here.broker.reclaim(landlord, lease, Reclaim(reason="ours again"))
    assert view.ending == "reclaimed"


async def test_an_offer_for_some_tenants_is_not_there_for_others(here: World) -> None:
    await pair(here, offer(devices("n1"), allowed_borrowers=["team-a"]))
    assert len((await here.broker.offers(await here.user("team-a"))).items) == 1
    assert (await here.broker.offers(await here.user("team-z"))).items == []
    shown = (await here.broker.offers(ADMIN)).items[0]
    with pytest.raises(NotFound):
        await here.broker.offer(await here.user("team-z"), shown.id)


async def test_a_read_only_token_changes_nothing(here: World) -> None:
    await pair(here)
    reader = await here.user("team-a", "read")
    for call in (
        here.broker.submit(reader, wish()),
        here.broker.quote(reader, wish()),
        here.broker.return_lease(reader, "lse-1"),
        here.broker.advert(reader, "x"),
        here.broker.desired(reader),
    ):
        with pytest.raises(MissingScope):
            await call


async def test_the_same_key_and_body_has_one_effect_and_another_body_is_refused(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    once = Once(key="retry", fingerprint="one")
    first = await here.broker.submit(user, wish(), once)
    assert await here.broker.submit(user, wish(), once) == first
    assert len((await here.broker.requests(user)).items) == 1
    with pytest.raises(IdempotencyKeyReused):
        await here.broker.submit(user, wish(count=2), Once(key="retry", fingerprint="two"))
    other = await here.user("team-a")
    assert (await here.broker.submit(other, wish(), once)).id != first.id

    here.clock.advance(hours=25)
    await here.broker.forget()
    assert (await here.broker.submit(user, wish(), once)).id != first.id


def test_secrets_differ_by_salt_and_pepper_and_hashes_ignore_the_pin() -> None:
    one = secret.secret("lmt", salt="a", pepper=b"1")
    assert one == secret.secret("lmt", salt="a", pepper=b"1")
    assert one not in (secret.secret("lmt", salt="b", pepper=b"1"), secret.secret("lmt", salt="a", pepper=b"2"))
    assert len(one) == 4 + 43
    assert secret.hashed("lmj_x.0123") == secret.hashed("lmj_x")


def test_an_agents_scope_is_given_to_no_token() -> None:
    assert "agent" not in {scope.value for scope in Scope}
    with pytest.raises(MissingScope):
        Principal(subject="s", tenant="t", scopes=frozenset({"admin"})).agent_of()
