"""What is in an image, and what is known about it: never is anything called safe that was not looked up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from videogen_testing.images import audit, build, sbom

SHIPPED = [name for name in build.IMAGES if name != "torch"]


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bill of each image, as on a machine that has built none."""
    folder = tmp_path_factory.mktemp("bills")
    sbom.main(folder, dict.fromkeys(SHIPPED, "localhost/videogen/of-nobody:1"))
    return {path.name.removesuffix(".cdx.json"): path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_bill_is_cyclonedx_and_has_every_package_of_the_locks(bills: dict[str, str], name: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bills[name]) is None
    bill = json.loads(bills[name])
    found = {(one["name"], one["version"]) for one in bill["components"]}
    assert found == {pin for lock in sbom.locks(name) for pin in sbom.pins(lock).items()}
    assert {"name": "videogen:system-packages", "value": sbom.UNKNOWN} in bill["metadata"]["component"]["properties"]


def test_an_image_on_the_torch_layer_has_its_packages_too(bills: dict[str, str]) -> None:
    assert "pkg:pypi/torch@" in bills["trainer"] and "pkg:pypi/torch@" in bills["serving"] and "pkg:pypi/torch@" not in bills["operator"]
    assert "pkg:pypi/nvidia-pytriton@" in bills["serving"]


def test_licences_are_those_that_the_packages_state(bills: dict[str, str]) -> None:
    (found,) = [one for one in json.loads(bills["operator"])["components"] if one["name"] == "pydantic"]
    assert found["licenses"] == [{"license": {"id": "MIT"}}]


STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u14
Description: GNU C Library
 Status: half-installed

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def test_packages_of_the_system_that_are_installed_are_named_after_their_distribution() -> None:
    release = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
    (found,) = sbom.system_packages(release, STATUS)
    assert str(found.purl) == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12"


# --- audit ----------------------------------------------------------------------------------------------------------


class Osv:
    """Answers on loopback as OSV's documentation says, or as whatever else stands in the way."""

    def __init__(self) -> None:
        self.vulnerable: dict[str, list[str]] = {}
        self.raw: bytes | None = None
        self.status = 200
        osv = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
                body = osv.raw if osv.raw is not None else json.dumps({"results": [osv.answer(query) for query in asked]}).encode()
                self.send_response(osv.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, query: dict[str, Any]) -> dict[str, Any]:
        """One identifier a page."""
        found, page = self.vulnerable.get(query["package"]["purl"], []), int(query.get("page_token", "0"))
        more = {"next_page_token": str(page + 1)} if page + 1 < len(found) else {}
        return {"vulns": [{"id": found[page], "modified": "2025-01-01T00:00:00Z"}], **more} if found else {}


@pytest.fixture
def osv() -> Iterator[Osv]:
    source = Osv()
    thread = Thread(target=source.server.serve_forever)
    thread.start()
    yield source
    source.server.shutdown()
    thread.join()
    source.server.server_close()


@pytest.fixture
def whole(bills: dict[str, str], tmp_path: Path) -> Path:
    """The operator's bill, as if its system had no packages."""
    bill = json.loads(bills["operator"])
    del bill["metadata"]["component"]["properties"]
    path = tmp_path / "operator.cdx.json"
    path.write_text(json.dumps(bill))
    return path


def test_nothing_is_known_about_any_package(osv: Osv, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([whole], osv.url) == audit.CLEAN
    assert capsys.readouterr().out.startswith("0 of ")


def test_all_pages_of_what_is_known_are_printed(osv: Osv, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (purl,) = [purl for purl in audit.components(whole)[0] if purl.startswith("pkg:pypi/aiohttp@")]
    osv.vulnerable[purl] = ["GHSA-1", "PYSEC-2", "CVE-3"]
    assert audit.main([whole], osv.url) == audit.VULNERABLE
    assert capsys.readouterr().out.splitlines()[0] == f"{purl}: GHSA-1, PYSEC-2, CVE-3"


ANSWERS = {
    "a login page of a proxy": b"<html>please log in</html>",
    "a list that is too short": b'{"results": []}',
    "another document": b'{"message": "moved"}',
    "a list of something else": b'{"results": null}',
    "nothing": b"",
}


@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_that_is_none_is_unknown(osv: Osv, whole: Path, raw: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    osv.raw = raw
    assert audit.main([whole], osv.url) == audit.NOT_KNOWN
    assert capsys.readouterr().out.startswith("unknown: none of ")


def test_an_error_of_the_server_is_unknown(osv: Osv, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    osv.status = 503
    assert audit.main([whole], osv.url) == audit.NOT_KNOWN
    assert "503" in capsys.readouterr().out


def test_a_source_that_cannot_be_reached_is_unknown(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        assert audit.main([whole], f"http://127.0.0.1:{held.getsockname()[1]}") == audit.NOT_KNOWN
    assert "because OSV cannot be reached" in capsys.readouterr().out


def test_a_bill_without_the_systems_packages_is_unknown(
    osv: Osv, bills: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "operator.cdx.json"
    path.write_text(bills["operator"])
    assert audit.main([path], osv.url) == audit.NOT_KNOWN
    assert "the packages of the operating system are not in" in capsys.readouterr().out
