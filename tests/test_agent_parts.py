"""The agent's smaller promises: what it remembers, in which order it speaks, whom it trusts."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from broker import tls
from broker.kit import jose
from broker.wire.agents import Heard, Join, Joined, LeaseReport, Report
from broker.wire.leases import LeaseClaims
from clusteragent import expiry
from clusteragent.act import kubeconfig
from clusteragent.cache import Cache
from clusteragent.expiry import Now
from clusteragent.fences import CONFIG_MAP, Fences
from clusteragent.identity import SECRET, FileKeeper, Identity, MemoryKeeper, NoIdentity, SecretKeeper, dial, joined
from clusteragent.kube.foreign import only_data
from clusteragent.kube.interface import CONFIG_MAPS, PODS, SECRETS, Conflict
from clusteragent.kube.sim import SimCluster
from clusteragent.reporter import Reporter, Sequence
from clusteragent.settings import Settings
from clusteragent.slots import Slots
from clusteragent.uplink import HttpUplink, Refused, Unreachable, join_key, pinned_ca
from tests.agents import NAMESPACE, Side, pod_with, until

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TOKEN = "lmj_0123456789abcdef"


def settings(**more: Any) -> Settings:
    return Settings.model_validate({"cluster": "b", "broker_url": "https://broker.test", "join_token": TOKEN, **more})


# --- time ------------------------------------------------------------------------------------------------------------
def claims(*, begins: datetime = NOW, life: int = 600) -> LeaseClaims:
    iat = int(begins.timestamp())
    return LeaseClaims.model_construct(iat=iat, nbf=iat, exp=iat + life, generation=1)


def at(seconds: float, *, wall_off: float = 0) -> Now:
    return Now(NOW + timedelta(seconds=seconds + wall_off), 1_000 + seconds)


def test_the_borrower_stops_e_before_the_end_and_the_lender_e_after_it() -> None:
    lease, receipt = claims(), expiry.received(claims(), at(0))
    assert expiry.borrower_seconds(lease, at(595), skew=5) == 0
    assert expiry.lender_seconds(lease, receipt, at(604), skew=5) == 1
    assert expiry.lender_seconds(lease, receipt, at(605), skew=5) == 0


def test_a_wall_clock_that_is_put_back_makes_no_lease_longer() -> None:
    receipt = expiry.received(claims(), at(0))
    assert expiry.lender_seconds(claims(), receipt, at(606, wall_off=-10_000), skew=5) < 0


def test_after_a_restart_only_what_was_left_by_the_wall_counts() -> None:
    receipt = expiry.received(claims(), at(400), again=True)
    assert receipt.good_for == 200


# --- speaking --------------------------------------------------------------------------------------------------------
class Ear:
    """Hears reports; ``highest`` is what it claims to have heard before."""

    def __init__(self, key: jose.SigningKey) -> None:
        self.key, self.highest, self.down = key, 0, False
        self.heard: list[Report] = []
        self.news = asyncio.Event()

    async def report(self, jws: str) -> Heard:
        if self.down:
            raise Unreachable("down")
        report = Report.model_validate_json(jose.verify(jws, typ=jose.REPORT, jwks=[self.key.public_jwk()]))
        applied = report.sequence > self.highest
        if applied:
            self.highest = report.sequence
            self.heard.append(report)
            self.news.set()
        return Heard(server_time=NOW, sequence=self.highest, applied=applied)


@pytest.fixture
async def speaking() -> AsyncIterator[tuple[Reporter, Ear]]:
    key = jose.SigningKey.generate()
    ear = Ear(key)
    reporter = Reporter(cluster="b", uplink=ear, key=key, clock=lambda: NOW, highest_fence=lambda: 7)  # type: ignore[arg-type]  # an ear is enough
    task = asyncio.create_task(reporter.run())
    yield reporter, ear
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def word(lease: str, phase: str = "held") -> LeaseReport:
    return LeaseReport.model_validate({"lease": lease, "role": "lender", "generation": 1, "phase": phase})


async def test_many_reports_travel_in_one_message(speaking: tuple[Reporter, Ear]) -> None:
    reporter, ear = speaking
    for number in range(50):
        reporter.say(word(f"lse-{number}"))
    await asyncio.wait_for(ear.news.wait(), 5)
    assert [len(report.leases) for report in ear.heard] == [50]
    assert ear.heard[0].highest_fence == 7


async def test_only_the_newest_word_is_said_when_the_broker_is_back(speaking: tuple[Reporter, Ear]) -> None:
    reporter, ear = speaking
    ear.down = True
    reporter.say(word("lse-1", "held"))
    await asyncio.sleep(0.1)
    reporter.say(word("lse-1", "released"))
    ear.down = False
    await asyncio.wait_for(ear.news.wait(), 5)
    assert [each.phase for report in ear.heard for each in report.leases] == ["released"]

    async def all_said() -> bool:
        return reporter.unsaid == 0

    await until(all_said)


async def test_a_number_that_was_heard_before_is_followed_by_a_higher_one(speaking: tuple[Reporter, Ear]) -> None:
    reporter, ear = speaking
    ear.highest = 1 << 52
    await reporter.resync([word("lse-1")])
    assert ear.heard[0].sequence == (1 << 52) + 1


async def test_what_ended_while_nobody_heard_is_in_the_first_word(speaking: tuple[Reporter, Ear]) -> None:
    reporter, ear = speaking
    ear.down = True
    reporter.say(word("lse-over", "released"))
    await asyncio.sleep(0.05)
    ear.down = False
    await reporter.resync([word("lse-here", "lent")])
    first = next(report for report in ear.heard if report.resync)
    assert {each.lease: each.phase for each in first.leases} == {"lse-here": "lent", "lse-over": "released"}


def test_numbers_rise_though_the_clock_stands_still_or_goes_back() -> None:
    times = iter((NOW, NOW, NOW - timedelta(days=1), NOW + timedelta(seconds=1)))
    sequence = Sequence(lambda: next(times))
    numbers = [sequence.next() for _ in range(4)]
    assert numbers == sorted(set(numbers))


# --- remembering -----------------------------------------------------------------------------------------------------
@pytest.fixture
async def cluster() -> SimCluster:
    made = SimCluster("b")
    await Side.furnish(made)
    return made


async def test_fences_outlive_the_agent_and_never_fall(cluster: SimCluster) -> None:
    fences = Fences(cluster.connect(), NAMESPACE)
    await fences.load()
    await asyncio.gather(*(fences.remember({"d/p/one": number, f"d/p/{number}": 1}) for number in (3, 9, 5)))
    again = Fences(cluster.connect(), NAMESPACE)
    await again.load()
    assert again.highest == 9
    assert again.lower({"d/p/one": 8}) == "d/p/one"
    assert again.lower({"d/p/one": 9, "d/p/new": 1}) is None


async def test_fences_survive_a_conflict(cluster: SimCluster) -> None:
    kube = cluster.connect()
    fences = Fences(kube, NAMESPACE)
    await fences.load()
    kube.faults.fail_next(Conflict(409, "Conflict", "changed"), verb="update", kind=CONFIG_MAPS)
    await fences.remember({"d/p/one": 2})
    kept = await kube.get(CONFIG_MAPS, CONFIG_MAP, NAMESPACE)
    assert json.loads(kept["data"]["fences"]) == {"d/p/one": 2}


async def test_what_vanished_while_nobody_watched_is_gone_from_the_cache(cluster: SimCluster) -> None:
    kube, cache = cluster.connect(), Cache([PODS])
    following = asyncio.create_task(cache[PODS].follow(kube))
    await cache.synced()
    for number in range(3):
        await kube.create(PODS, pod_with(f"pod-{number}"))

    async def has(*names: str) -> bool:
        return set(cache[PODS].within("default")) == set(names)

    await until(lambda: has("pod-0", "pod-1", "pod-2"))
    kube.expire_watches()
    cluster.remove(PODS, "pod-1", namespace="default")
    await until(lambda: has("pod-0", "pod-2"))
    following.cancel()


async def test_an_answer_that_arrives_late_brings_nothing_back(cluster: SimCluster) -> None:
    kube, cache = cluster.connect(), Cache([PODS])
    following = asyncio.create_task(cache[PODS].follow(kube))
    await cache.synced()
    answer = await kube.create(PODS, pod_with("pod"))

    async def there(wanted: bool) -> bool:
        return (cache[PODS].get("pod", "default") is not None) is wanted

    await until(lambda: there(True))
    cluster.remove(PODS, "pod", namespace="default")
    await until(lambda: there(False))
    cache.note(PODS, answer)
    assert cache[PODS].get("pod", "default") is None
    following.cancel()


async def test_the_more_urgent_call_goes_first_and_a_cancelled_one_takes_no_slot() -> None:
    slots, order = Slots(1), []
    wishes = (("c", 3), ("x", 1), ("a", 1), ("b", 2))

    async def call(name: str, priority: int) -> None:
        async with slots.turn(priority):
            order.append(name)
            await asyncio.sleep(0)

    async with slots.turn(0):
        tasks = [asyncio.create_task(call(name, priority)) for name, priority in wishes]
        await asyncio.sleep(0)
        tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "b", "c"]


# --- who we are ------------------------------------------------------------------------------------------------------
class Doorkeeper:
    """Lets a join token in once, and again only with the same keys."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.secret: str | None = None

    async def join(self, body: Join) -> Joined:
        known = self.keys.setdefault(body.token, join_key(body))
        assert known == join_key(body), "the token was used with other keys"
        return Joined(
            cluster=body.cluster, tenant="t", credential="lmc_x", issuer="i", jwks={"keys": []}, server_time=NOW
        )

    def credential(self, secret: str) -> None:
        self.secret = secret


class Forgetful(MemoryKeeper):
    """Dies before it has kept the credential."""

    def __init__(self) -> None:
        super().__init__()
        self.dying = True

    async def save(self, identity: Identity) -> None:
        if identity.credential and self.dying:
            raise ConnectionResetError("killed")
        await super().save(identity)


async def test_an_agent_that_dies_while_it_joins_joins_as_the_same_one() -> None:
    door, keeper = Doorkeeper(), Forgetful()
    with pytest.raises(ConnectionResetError):
        await joined(settings(), keeper, door)  # type: ignore[arg-type]  # a door is enough
    keeper.dying = False
    identity = await joined(settings(), keeper, door)  # type: ignore[arg-type]  # a door is enough
    assert identity.credential == door.secret == "lmc_x"


async def test_an_agent_without_token_or_credential_says_what_to_do() -> None:
    with pytest.raises(NoIdentity, match="join token"):
        await joined(settings(join_token=None), MemoryKeeper(), Doorkeeper())  # type: ignore[arg-type]  # a door is enough


async def test_an_identity_is_the_same_after_it_was_kept(cluster: SimCluster, tmp_path: Path) -> None:
    identity = Identity.new()
    for keeper in (SecretKeeper(cluster.connect(), NAMESPACE), FileKeeper(tmp_path / "deep" / "identity")):
        assert await keeper.load() is None
        await keeper.save(identity)
        again = await keeper.load()
        assert again is not None
        assert again.signing.kid == identity.signing.kid
        assert again.sealing.open(jose.seal(b"hello", to=identity.sealing.public_jwk())) == b"hello"
    assert (tmp_path / "deep" / "identity").stat().st_mode & 0o777 == 0o600
    kept = await cluster.connect().get(SECRETS, SECRET, NAMESPACE)
    assert "lmc_" not in repr(identity) + repr(kept["metadata"])


def test_no_secret_is_in_what_an_identity_says_of_itself() -> None:
    identity = Identity.new()
    assert identity.signing.private_jwk()["d"] not in repr(identity)


# --- whom we trust ---------------------------------------------------------------------------------------------------
@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[tuple[str, tls.TlsFiles]]:
    """A TLS server as the broker is one, that knows one path."""
    files = tls.embedded(tmp_path, names=["127.0.0.1"], now=datetime.now(UTC))

    async def keys(request: web.Request) -> web.Response:
        return web.json_response({"keys": []})

    app = web.Application()
    app.router.add_get("/.well-known/jwks.json", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context(files))
    await site.start()
    port = runner.addresses[0][1]
    yield f"https://127.0.0.1:{port}", files
    await runner.cleanup()


async def test_a_join_tokens_pin_finds_the_brokers_ca_and_no_other(door: tuple[str, tls.TlsFiles]) -> None:
    url, files = door
    ca = await pinned_ca(url, files.pin)
    assert ssl.PEM_cert_to_DER_cert(ca) == ssl.PEM_cert_to_DER_cert(files.ca.read_text())
    with pytest.raises(Refused, match="not the broker"):
        await pinned_ca(url, "0" * 32)


async def test_a_pinned_agent_speaks_with_its_broker(door: tuple[str, tls.TlsFiles]) -> None:
    url, files = door
    uplink = await dial(settings(broker_url=url, join_token=f"{TOKEN}.{files.pin}"), MemoryKeeper())
    assert await uplink.jwks() == []
    await uplink.close()


async def test_nobody_is_told_anything_without_trust(door: tuple[str, tls.TlsFiles]) -> None:
    url, _ = door
    stranger = HttpUplink(url)
    with pytest.raises(Unreachable):
        await stranger.jwks()
    await stranger.close()
    with pytest.raises(Refused, match="https"):
        await pinned_ca("http://broker.test", "0" * 32)


# --- settings and small things ---------------------------------------------------------------------------------------
def test_settings_come_from_the_environment_and_a_typo_is_an_error() -> None:
    found = Settings.from_env(
        {
            "LENDMESH_AGENT_CLUSTER": "b",
            "LENDMESH_AGENT_BROKER_URL": "https://x",
            "LENDMESH_AGENT_LEND": "false",
            "LENDMESH_AGENT_REGION": "",
            "PATH": "/bin",
        }
    )
    assert (found.cluster, found.lend, found.region, found.skew) == ("b", False, None, 5)
    with pytest.raises(ValueError, match="hartbeat"):
        Settings.from_env({"LENDMESH_AGENT_CLUSTER": "b", "LENDMESH_AGENT_HARTBEAT": "1"})


def test_a_join_token_is_not_shown_by_its_settings() -> None:
    assert TOKEN not in repr(settings())


def test_a_kubeconfig_for_a_borrower_names_data_only() -> None:
    import yaml

    made = kubeconfig(server="https://1.2.3.4:6443", ca_pem="-----BEGIN", namespace="lendmesh-x", token="a: 'b'\n#")
    config = yaml.safe_load(made)
    only_data(config)
    assert config["users"][0]["user"] == {"token": "a: 'b'\n#"}
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == b"-----BEGIN"


async def test_patient_calls_get_a_turn_while_urgent_ones_keep_coming() -> None:
    slots, order = Slots(1), []

    async def call(name: str, priority: int) -> None:
        async with slots.turn(priority):
            order.append(name)

    async with slots.turn(0):
        tasks = [asyncio.create_task(call("urgent", 1)) for _ in range(20)]
        tasks.append(asyncio.create_task(call("patient", 5)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert "patient" in order[:5]
