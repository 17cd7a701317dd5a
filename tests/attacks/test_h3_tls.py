"""TLS of the inbox: who does not shake hands is closed, and a renewed certificate is served without a restart."""

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from videogen_operator.inbound.certificates import Certificate
from videogen_operator.inbound.endpoints import probes
from videogen_operator.inbound.listening import Limits, Listener, serve
from videogen_operator.watchdog import Watchdog

NAME = "videogen-operator.videogen-system.svc"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(folder: Path) -> tuple[Path, Path]:
    """A new certificate with its key, as cert-manager writes them."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate, private


async def ask(server: Listener, authority: bytes, hostname: str = NAME) -> bytes:
    """The first line of the answer to a client that trusts this certificate alone."""
    trusting = ssl.create_default_context(cadata=authority.decode())
    reader, writer = await asyncio.open_connection(*server.addresses[0][:2], ssl=trusting, server_hostname=hostname)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line


async def test_a_renewed_certificate_is_served_and_a_broken_one_is_not(tmp_path: Path) -> None:
    clock, (certificate, key) = Clock(), make(tmp_path)
    server = await serve(probes(Watchdog(60, lambda: True)), "127.0.0.1", 0, certificate=Certificate(certificate, key, clock))
    first = certificate.read_bytes()
    assert await ask(server, first) == b"HTTP/1.1 200 OK\r\n"
    with pytest.raises(ssl.SSLCertVerificationError):
        await ask(server, first, "another.name")
    certificate.write_text("half of a certificate")
    clock.now += 10
    assert await ask(server, first) == b"HTTP/1.1 200 OK\r\n"
    make(tmp_path)
    clock.now += 10
    assert await ask(server, certificate.read_bytes()) == b"HTTP/1.1 200 OK\r\n"
    with pytest.raises(ssl.SSLCertVerificationError):
        await ask(server, first)
    await server.cleanup()


async def test_who_sends_no_handshake_is_closed_and_keeps_nobody_out(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    limits = Limits(connections=16, per_address=16, header_seconds=2.0)
    server = await serve(probes(Watchdog(60, lambda: True)), "127.0.0.1", 0, limits=limits, certificate=Certificate(certificate, key))
    silent = [await asyncio.open_connection(*server.addresses[0][:2]) for _ in range(40)]
    assert await ask(server, certificate.read_bytes()) == b"HTTP/1.1 200 OK\r\n"
    for _, writer in silent[::2]:
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
    for reader, writer in silent:
        with suppress(ConnectionError):
            assert b"200" not in await reader.read()
        writer.close()
    while server._open:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.05)
    await server.cleanup()


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    with pytest.raises(ValueError, match=r"tls\.crt with .*tls\.crt is no PEM certificate chain with its private key"):
        Certificate(certificate, certificate)
    with pytest.raises(ValueError, match="is no PEM certificate chain"):
        Certificate(tmp_path / "absent", key)
