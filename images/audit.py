"""Known vulnerabilities: `python -m images.audit FILE ...` asks OSV (https://osv.dev) about every component of bills of materials.

Exit code 0: OSV was asked about every component, and knows of nothing. 1: it knows of something; one line each. 2: unknown: it could
not be asked, or a bill does not say all that is in the image. Never is something that was not looked up called safe.
"""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from images.sbom import UNKNOWN

SOURCE = "https://api.osv.dev/v1/querybatch"
CLEAN, VULNERABLE, NOT_KNOWN = 0, 1, 2
_BATCH = 500  # OSV takes 1,000
_SECONDS = 30


class UnreachableError(Exception):
    """OSV did not answer, or not what its documentation says (https://google.github.io/osv.dev/post-v1-querybatch/)."""


def components(path: Path) -> tuple[list[str], bool]:
    """The package URLs of a bill, sorted, and whether it is complete."""
    bill = json.loads(path.read_text(encoding="utf-8"))
    properties = bill["metadata"]["component"].get("properties", [])
    return sorted(one["purl"] for one in bill["components"]), all(one.get("value") != UNKNOWN for one in properties)


def ask(purls: Sequence[str], source: str = SOURCE) -> dict[str, list[str]]:
    """Package URL -> identifiers of what is known about it, for all of them. Raises UnreachableError."""
    known: dict[str, list[str]] = {}
    for first in range(0, len(purls), _BATCH):
        part = purls[first : first + _BATCH]
        queries: list[dict[str, Any]] = [{"package": {"purl": purl}} for purl in part]
        known |= {
            purl: list(_all_pages(query, answer, source)) for purl, query, answer in zip(part, queries, _post(queries, source), strict=True)
        }
    return known


def _all_pages(query: dict[str, Any], answer: dict[str, Any], source: str) -> Iterator[str]:
    while True:
        yield from (one["id"] for one in answer.get("vulns", []))
        if not (page := answer.get("next_page_token")):
            return
        (answer,) = _post([query | {"page_token": page}], source)


def _post(queries: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(source, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            results = json.load(response)["results"]
            if len(results) != len(queries) or not all(isinstance(one, dict) for one in results):
                raise UnreachableError(f"{source} answered {len(results)} of {len(queries)} queries")
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise UnreachableError(f"{source}: {error}") from error
    return list(results)


def main(paths: Sequence[Path], source: str = SOURCE) -> int:
    """Ask about all bills together -> the exit code."""
    read = {path: components(path) for path in paths}
    purls = sorted({purl for found, _ in read.values() for purl in found})
    partial = [str(path) for path, (_, complete) in read.items() if not complete]
    try:
        known = {purl: found for purl, found in ask(purls, source).items() if found}
    except UnreachableError as error:
        print(f"unknown: none of {len(purls)} packages was looked up, because OSV cannot be reached: {error}")
        return NOT_KNOWN
    for purl, found in known.items():
        print(f"{purl}: {', '.join(found)}")
    print(f"{len(known)} of {len(purls)} packages have known vulnerabilities")
    if partial:
        print(f"unknown: the packages of the operating system are not in {', '.join(partial)}; build the images first")
    if known:
        return VULNERABLE
    return NOT_KNOWN if partial or not purls else CLEAN


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
