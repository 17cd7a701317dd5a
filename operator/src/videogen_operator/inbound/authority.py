"""A certificate authority of our own and the one server certificate that it signs. Pure: bytes in, bytes out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE, LIFE = timedelta(days=20 * 365), timedelta(days=365)
RENEWED_BEFORE = timedelta(days=120)  # the end of the certificate
SKEW = timedelta(hours=1)  # a clock that is slow by so much takes a new certificate for valid
CA_CERTIFICATE, CA_KEY, CERTIFICATE, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"  # in the Secret, as cert-manager names them

Files = Mapping[str, bytes]  # PEM by the names above


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> tuple[bytes, bytes]:
        """Certificate and key."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self.certificate.public_bytes(Encoding.PEM), key


def ensured(files: Files, names: Iterable[str], now: datetime) -> Files:
    """The same files if they serve these names (DNS names and IP addresses) for `RENEWED_BEFORE` from now; else new ones.

    The authority stays, because whoever trusts it would have to learn another one: a new one is made only if there is none that can
    be read, or if it ends before a certificate of today would.
    """
    wanted = frozenset(names)
    authority = _pair(files, CA_CERTIFICATE, CA_KEY)
    if authority is None or authority.certificate.not_valid_after_utc < now + LIFE:
        authority = _authority(now)
    elif (server := _pair(files, CERTIFICATE, KEY)) and _serves(server.certificate, authority.certificate, wanted, now):
        return files
    authority_files = dict(zip((CA_CERTIFICATE, CA_KEY), authority.pem(), strict=True))
    return authority_files | dict(zip((CERTIFICATE, KEY), _server(authority, wanted, now).pem(), strict=True))


def _serves(certificate: x509.Certificate, authority: x509.Certificate, names: frozenset[str], now: datetime) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return {str(name.value) for name in said} == names and certificate.not_valid_after_utc > now + RENEWED_BEFORE


def _pair(files: Files, certificate: str, key: str) -> Pair | None:
    """None if one of them is absent or damaged, or if they do not belong together."""
    try:
        pair = x509.load_pem_x509_certificate(files[certificate]), load_pem_private_key(files[key], None)
    except (KeyError, ValueError, TypeError):
        return None
    if not isinstance(pair[1], ec.EllipticCurvePrivateKey) or pair[0].public_key() != pair[1].public_key():
        return None
    return Pair(pair[0], pair[1])


def _authority(now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("videogen inbox authority")
    signs = _usage(key_cert_sign=True, crl_sign=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _builder(name, name, key, now, CA_LIFE).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(signs, critical=True).add_extension(identifier, critical=False)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def _server(authority: Pair, names: frozenset[str], now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(_named("videogen inbox"), issuer.subject, key, now, LIFE)
    for extension, critical in (
        (x509.SubjectAlternativeName([_general(name) for name in sorted(names)]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - SKEW).not_valid_after(now + life)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _named(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(**uses: bool) -> x509.KeyUsage:
    none = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
            "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    return x509.KeyUsage(**none | uses)
