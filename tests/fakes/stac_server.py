"""A STAC API and its COGs on loopback: range requests, paging, and faults on demand."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from shapely.geometry import box, shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

API = "https://api.stacspec.org/v1.0.0"
PAGE = 2


@dataclass
class FakeStac:
    """What the server serves and what it saw.

    Attributes:
        folder: Files served below /data/, with range requests.
        items: STAC items of the search.
        url: Address, once it runs.
        gone: Paths that answer 404.
        flaky: Path -> how many times it still answers 503.
        stalled: Paths that never answer within a test's patience (they hang up after ``stall_s``).
        stall_s: See ``stalled``.
        slow_s: Path -> seconds that each of its answers takes.
        private: Paths that answer 403 without a signature; ``/sign?href=`` gives one.
        hits: Requests per path.
        sent_bytes: Bytes of files sent.
        searches: Bodies of the searches.
    """

    folder: Path
    items: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    gone: set[str] = field(default_factory=set)
    flaky: Counter[str] = field(default_factory=Counter)
    stalled: set[str] = field(default_factory=set)
    stall_s: float = 1.0
    slow_s: dict[str, float] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    hits: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    searches: list[dict[str, Any]] = field(default_factory=list)

    def file_url(self, name: str) -> str:
        return f"{self.url}/data/{name}"


@contextmanager
def serve(folder: Path) -> Iterator[FakeStac]:
    """A server in threads of this process, gone when the block ends."""
    state = FakeStac(folder)

    class Handler(_Handler):
        fake = state

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up while it is answered, as one does after another's error, is not worth a word."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    fake: FakeStac
    protocol_version = "HTTP/1.1"
    timeout = 10

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        query = json.loads(self.rfile.read(length) or b"{}")
        self.fake.searches.append(query)
        self._json(self._search(query))

    def _answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.fake.hits[path] += 1
        time.sleep(self.fake.slow_s.get(path, 0.0))
        if path in self.fake.stalled:
            time.sleep(self.fake.stall_s)
            self.close_connection = True
        elif path in self.fake.gone:
            self._status(404)
        elif self.fake.flaky[path] > 0:
            self.fake.flaky[path] -= 1
            self._status(503)
        elif path == "/sign":
            href = parse_qs(parts.query)["href"][0]
            self._json({"href": f"{href}?sig=topsecret", "msft:expiry": "2099-01-01T00:00:00Z"})
        elif path in self.fake.private and "sig=topsecret" not in parts.query:
            self._status(403)
        elif path.startswith("/data/"):
            self._file(path.removeprefix("/data/"), body=body)
        elif path == "/search":
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self._json(self._search(query))
        else:
            self._api(path)

    def _status(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/geo+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, name: str, *, body: bool) -> None:
        file = self.fake.folder / name
        if not file.is_file():
            self._status(404)
            return
        data = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = 0, len(data)
        if wanted:
            start = int(wanted[1])
            stop = min(len(data), int(wanted[2]) + 1) if wanted[2] else len(data)
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.fake.sent_bytes += stop - start
            self.wfile.write(data[start:stop])

    def _api(self, path: str) -> None:
        url = self.fake.url
        if path == "/":
            self._json(
                {
                    "type": "Catalog",
                    "stac_version": "1.0.0",
                    "id": "fake",
                    "description": "A STAC API on loopback",
                    "conformsTo": [
                        f"{API}/core",
                        f"{API}/item-search",
                        f"{API}/item-search#query",
                        f"{API}/collections",
                    ],
                    "links": [
                        {"rel": "root", "href": f"{url}/", "type": "application/json"},
                        {"rel": "self", "href": f"{url}/", "type": "application/json"},
                        {"rel": "search", "href": f"{url}/search", "type": "application/geo+json", "method": "GET"},
                        {"rel": "search", "href": f"{url}/search", "type": "application/geo+json", "method": "POST"},
                    ],
                }
            )
        else:
            self._status(404)

    def _search(self, query: dict[str, Any]) -> dict[str, Any]:
        area = shape(query["intersects"]) if query.get("intersects") else box(*query["bbox"])
        start, _, stop = str(query.get("datetime", "../..")).partition("/")
        most = query.get("query", {}).get("eo:cloud_cover", {}).get("lte", 100)
        found = [
            item
            for item in self.fake.items
            if shape(item["geometry"]).intersects(area)
            and (start == ".." or item["properties"]["datetime"] >= start)
            and (stop == ".." or item["properties"]["datetime"] <= stop)
            and item["properties"].get("eo:cloud_cover", 0) <= most
            and item["collection"] in query.get("collections", [item["collection"]])
        ]
        first = int(query.get("token", 0))
        links = []
        if first + PAGE < len(found):
            body = query | {"token": first + PAGE}
            links = [{"rel": "next", "href": f"{self.fake.url}/search", "method": "POST", "body": body}]
        return {"type": "FeatureCollection", "features": found[first : first + PAGE], "links": links}
