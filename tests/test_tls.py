"""The embedded certificates and the key files: made once, private, renewed in time, never overwritten by mistake."""

import asyncio
import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker import keys, tls
from broker.kit import pins

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NAMES = ("localhost", "127.0.0.1", "::1", "broker.example")


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


async def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str = "localhost") -> ssl.SSLObject:
    """The client's side of a TLS connection after one echo; raises what the client raised."""

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        found = writer.get_extra_info("ssl_object")
        writer.close()
        return found


def trusting(files: tls.TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "broker.example"])
async def test_who_trusts_the_ca_reaches_the_broker_by_each_of_its_names(tmp_path, name):
    files = tls.embedded(tmp_path, names=NAMES, now=datetime.now(UTC))
    found = await shake_hands(tls.server_context(files), trusting(files), name=name)
    assert found.version() == "TLSv1.3"


async def test_by_another_name_it_is_not_the_broker(tmp_path):
    files = tls.embedded(tmp_path, names=NAMES, now=datetime.now(UTC))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await shake_hands(tls.server_context(files), trusting(files), name="other.example")


async def test_nothing_older_than_tls_1_3_is_spoken(tmp_path):
    files = tls.embedded(tmp_path, names=NAMES, now=datetime.now(UTC))
    old = trusting(files)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await shake_hands(tls.server_context(files), old)


async def test_the_chain_that_is_shown_ends_in_the_ca_that_the_pin_names(tmp_path):
    files = tls.embedded(tmp_path, names=NAMES, now=datetime.now(UTC))
    untrusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    untrusting.check_hostname = False
    untrusting.verify_mode = ssl.CERT_NONE
    shown = await shake_hands(tls.server_context(files), untrusting)
    chain = [each.public_bytes(ssl._ssl.ENCODING_DER) for each in shown._sslobj.get_unverified_chain()]

    assert len(chain) == 2
    assert pins.fits(files.pin, chain[-1])
    assert not pins.fits(files.pin, chain[0])
    assert not pins.fits(files.pin[:-1], chain[-1])


def test_what_is_secret_is_for_the_broker_alone(tmp_path):
    directory = tmp_path / "data"
    tls.embedded(directory, names=NAMES, now=NOW)
    keys.lease_keys(directory / "lease-keys.json")

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("ca-key.pem", "server-key.pem", "lease-keys.json"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name
    assert not [path.name for path in directory.iterdir() if path.name.startswith(".")]


def test_a_second_start_changes_nothing(tmp_path):
    tls.embedded(tmp_path, names=NAMES, now=NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tls.embedded(tmp_path, names=NAMES, now=NOW + timedelta(days=50))

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("names", "later"), [((*NAMES, "new.example"), timedelta(0)), (NAMES, timedelta(days=61))], ids=["names", "age"]
)
def test_the_certificate_is_renewed_under_the_same_ca(tmp_path, names, later):
    files = tls.embedded(tmp_path, names=NAMES, now=NOW)
    pin, old = files.pin, certificate(files.certificate)
    files = tls.embedded(tmp_path, names=names, now=NOW + later)
    new = certificate(files.certificate)

    assert files.pin == pin
    assert new.serial_number != old.serial_number
    assert new.not_valid_after_utc == NOW + later + tls.CERTIFICATE_LIFE
    new.verify_directly_issued_by(certificate(files.ca))
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    assert key.public_key() == new.public_key()


async def test_a_running_server_shows_a_renewed_certificate(tmp_path):
    now = datetime.now(UTC)
    files = tls.embedded(tmp_path, names=NAMES, now=now)
    context = tls.server_context(files)
    first = (await shake_hands(context, trusting(files))).getpeercert()["serialNumber"]
    tls.load(context, tls.embedded(tmp_path, names=NAMES[:3], now=now))
    second = (await shake_hands(context, trusting(files))).getpeercert()["serialNumber"]
    assert first != second


def test_a_crash_between_ca_key_and_certificate_is_made_whole(tmp_path):
    files = tls.embedded(tmp_path, names=NAMES, now=NOW)
    key = (tmp_path / "ca-key.pem").read_bytes()
    for name in ("ca.pem", "server.pem", "server-key.pem"):
        (tmp_path / name).unlink()
    tls.embedded(tmp_path, names=NAMES, now=NOW)

    assert (tmp_path / "ca-key.pem").read_bytes() == key
    certificate(files.certificate).verify_directly_issued_by(certificate(files.ca))


def test_a_ca_whose_key_is_lost_is_not_replaced_behind_everybodys_back(tmp_path):
    tls.embedded(tmp_path, names=NAMES, now=NOW)
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(tls.BadCertificate, match="restore"):
        tls.embedded(tmp_path, names=NAMES, now=NOW)


async def test_somebody_elses_certificate_is_served_and_its_top_is_pinned(tmp_path):
    theirs = tls.embedded(tmp_path / "theirs", names=NAMES, now=datetime.now(UTC))
    files = tls.given(certificate=theirs.certificate, key=theirs.key, directory=tmp_path / "ours")

    assert files.pin == theirs.pin
    await shake_hands(tls.server_context(files), trusting(files))


def test_a_key_that_belongs_to_another_certificate_is_refused(tmp_path):
    one, other = (tls.embedded(tmp_path / name, names=NAMES, now=NOW) for name in ("one", "other"))
    with pytest.raises(tls.BadCertificate, match="don't belong together"):
        tls.server_context(tls.TlsFiles(certificate=one.certificate, key=other.key, ca=one.ca))


def test_lease_keys_stay_the_same_and_a_broken_file_is_not_overwritten(tmp_path):
    path = tmp_path / "lease-keys.json"
    first = keys.lease_keys(path)
    assert [key.kid for key in keys.lease_keys(path)] == [first[0].kid]

    older = json.loads(path.read_text())["keys"]
    newer = keys.lease_keys(tmp_path / "other.json")[0]
    path.write_text(json.dumps({"keys": [newer.private_jwk(), *older]}))
    assert [key.kid for key in keys.lease_keys(path)] == [newer.kid, first[0].kid]

    for broken in ("", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'):
        path.write_text(broken)
        with pytest.raises(keys.KeysUnreadable):
            keys.lease_keys(path)
        assert path.read_text() == broken


def test_of_two_who_write_a_secret_at_once_the_first_wins(tmp_path):
    path = tmp_path / "secret"
    keys.write_secret(path, b"first", replace=False)
    keys.write_secret(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    keys.write_secret(path, b"third", replace=True)
    assert path.read_bytes() == b"third"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
