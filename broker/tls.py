"""TLS without anybody's help: a CA of the broker's own, and a server certificate that renews itself.

On the first start a CA (ECDSA P-256, 10 years) is made in the data directory; join tokens pin it, so it stays. The
server's certificate lives 90 days and is made anew on a start, and once a day while running, when less than a third of
its life is left or the broker goes by other names. Only TLS 1.3 is spoken (RFC 8446): everyone who dials is ours.
The CA itself is sent at the end of the chain, so that whoever has only a join token can compare it with the pin.
"""

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.keys import write_secret
from broker.kit.pins import pin_of

CA_LIFE = timedelta(days=3_650)
CERTIFICATE_LIFE = timedelta(days=90)
BACKDATED = timedelta(minutes=5)
"""A member whose clock is a little behind must not find the certificate «not yet valid»."""


class BadCertificate(Exception):
    """A certificate or key file can't be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the server shows and what pins it."""

    certificate: Path
    key: Path
    ca: Path
    """The last certificate of the chain, PEM: what clients trust and join tokens pin."""

    @property
    def pin(self) -> str:
        """The pin that join tokens carry."""
        return pin_of(_load(self.ca).public_bytes(serialization.Encoding.DER))


def embedded(directory: Path, *, names: Sequence[str], now: datetime) -> TlsFiles:
    """The embedded CA and a server certificate for ``names`` in ``directory``; made or renewed where needed."""
    files = TlsFiles(certificate=directory / "server.pem", key=directory / "server-key.pem", ca=directory / "ca.pem")
    ca_key = directory / "ca-key.pem"
    if files.ca.exists() and not ca_key.exists():
        raise BadCertificate(f"{ca_key} is missing, but its certificate is there; restore both from a backup")
    if not files.ca.exists():
        _make_ca(certificate=files.ca, key=ca_key, now=now)
    if not (files.certificate.exists() and files.key.exists()) or _is_due(_load(files.certificate), names, now):
        _make_certificate(files, ca_key=ca_key, names=names, now=now)
    return files


def given(*, certificate: Path, key: Path, directory: Path) -> TlsFiles:
    """Somebody else's certificate and key; the last certificate of the chain is written apart, for the pin."""
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
        key.read_bytes()
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{certificate} and {key} can't be read as PEM: {error}") from None
    ca = directory / "ca.pem"
    write_secret(ca, chain[-1].public_bytes(serialization.Encoding.PEM), replace=True)
    return TlsFiles(certificate=certificate, key=key, ca=ca)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3 and nothing older."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    load(context, files)
    return context


def load(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Show these files from the next handshake on."""
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise BadCertificate(f"{files.certificate} and {files.key} don't belong together: {error}") from None


def _make_ca(*, certificate: Path, key: Path, now: datetime) -> None:
    # The key first, and read back: whoever dies in between, or races with another, goes on with the key that is there.
    write_secret(key, _pem(ec.generate_private_key(ec.SECP256R1())), replace=False)
    private = _load_key(key)
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"lendmesh broker CA {x509.random_serial_number():x}"[:48])]
    )
    made = (
        _builder(subject=name, issuer=name, public=private.public_key(), now=now, life=CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    write_secret(certificate, made.public_bytes(serialization.Encoding.PEM), replace=False)


def _make_certificate(files: TlsFiles, *, ca_key: Path, names: Sequence[str], now: datetime) -> None:
    ca = _load(files.ca)
    signer = _load_key(ca_key)
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lendmesh broker")])
    made = (
        _builder(subject=subject, issuer=ca.subject, public=private.public_key(), now=now, life=CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    write_secret(files.key, _pem(private), replace=True)
    chain = [made, ca]
    write_secret(
        files.certificate, b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain), replace=True
    )


def _builder(
    *, subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_due(certificate: x509.Certificate, names: Sequence[str], now: datetime) -> bool:
    """Less than a third of its life is left, or it is for other names."""
    shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return set(shown) != {_general_name(name) for name in names} or certificate.not_valid_after_utc - now < life / 3


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{path} can't be read as a certificate: {error}") from None


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{path} can't be read as a private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate(f"{path} is not the ECDSA key that the broker made")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
