"""The inbox's certificate: what Python's own TLS accepts, and when it is made anew."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from videogen_operator.inbound.authority import CA_LIFE, LIFE, RENEWED_BEFORE, Files, ensured

NOW = datetime.now(UTC).replace(microsecond=0)  # OpenSSL compares with the machine's clock
NAMES = ("videogen-operator", "videogen-operator.videogen-system.svc", "10.96.0.7")


def certificate(files: Files, name: str = "tls.crt") -> x509.Certificate:
    return x509.load_pem_x509_certificate(files[name])


def connects(served: Files, trusted: Files, name: str, folder: Path) -> str:
    """What a client that trusts an authority says when it meets a server under this name; "" if it is content."""
    for file in ("tls.crt", "tls.key"):
        (folder / file).write_bytes(served[file])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    client = ssl.create_default_context(cadata=trusted["ca.crt"].decode())
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(near, server_hostname=name).close()
    except ssl.SSLError as error:
        near.close()
        return str(error)
    finally:
        thread.join(60)
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_trusts_the_authority_accepts_each_name(name: str, tmp_path: Path) -> None:
    files = ensured({}, NAMES, NOW)
    assert connects(files, files, name, tmp_path) == ""


def test_a_client_refuses_another_name_and_another_authority(tmp_path: Path) -> None:
    files, others = ensured({}, NAMES, NOW), ensured({}, NAMES, NOW)
    assert "Hostname mismatch" in connects(files, files, "alertmanager", tmp_path)
    assert "CERTIFICATE_VERIFY_FAILED" in connects(others, files, NAMES[0], tmp_path)


def test_what_is_good_stays_as_it_is_in_whatever_order_the_names_are_given() -> None:
    files = ensured({}, NAMES, NOW)
    later = NOW + LIFE - RENEWED_BEFORE - timedelta(days=1)
    assert ensured(files, tuple(reversed(NAMES)), later) == files


def damaged(files: Files, name: str) -> Files:
    return dict(files) | {name: b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"}


RENEWALS = {
    "it ends in less than 120 days": lambda files: (files, NAMES, NOW + LIFE - RENEWED_BEFORE + timedelta(days=1)),
    "it has ended": lambda files: (files, NAMES, NOW + LIFE + timedelta(days=1)),
    "a name is added": lambda files: (files, (*NAMES, "inbox.example.org"), NOW),
    "a name is gone": lambda files: (files, NAMES[:2], NOW),
    "the certificate is damaged": lambda files: (damaged(files, "tls.crt"), NAMES, NOW),
    "the key is damaged": lambda files: (damaged(files, "tls.key"), NAMES, NOW),
    "the key is another's": lambda files: (dict(files) | {"tls.key": ensured({}, NAMES, NOW)["tls.key"]}, NAMES, NOW),
    "certificate and key are another authority's": lambda files: (
        dict(ensured({}, NAMES, NOW)) | {name: files[name] for name in ("ca.crt", "ca.key")},
        NAMES,
        NOW,
    ),
}


@pytest.mark.parametrize("case", RENEWALS.values(), ids=RENEWALS.keys())
def test_a_new_certificate_is_signed_by_the_same_authority_when(case: object, tmp_path: Path) -> None:
    files = ensured({}, NAMES, NOW)
    renewed = ensured(*case(files))  # type: ignore[operator]
    assert renewed["tls.crt"] != files["tls.crt"]
    assert (renewed["ca.crt"], renewed["ca.key"]) == (files["ca.crt"], files["ca.key"])
    certificate(renewed).verify_directly_issued_by(certificate(files, "ca.crt"))


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_an_authority_that_cannot_be_read_is_replaced(name: str) -> None:
    files = ensured({}, NAMES, NOW)
    assert ensured(damaged(files, name), NAMES, NOW)["ca.crt"] != files["ca.crt"]


def test_an_authority_is_replaced_before_it_ends_in_the_middle_of_a_certificates_life() -> None:
    files = ensured({}, NAMES, NOW)
    late = NOW + CA_LIFE - LIFE + timedelta(days=1)
    renewed = ensured(files, NAMES, late)
    assert renewed["ca.crt"] != files["ca.crt"]
    assert certificate(renewed).not_valid_after_utc <= certificate(renewed, "ca.crt").not_valid_after_utc


def test_the_authority_signs_certificates_and_the_certificate_serves_alone() -> None:
    files = ensured({}, NAMES, NOW)
    constraints = [
        certificate(files, name).extensions.get_extension_for_class(x509.BasicConstraints).value for name in ("ca.crt", "tls.crt")
    ]
    assert [(one.ca, one.path_length) for one in constraints] == [(True, 0), (False, None)]
    usage = certificate(files).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [use.dotted_string for use in usage] == ["1.3.6.1.5.5.7.3.1"]
