"""The server: loopback only, one secret address, a fixed list of answers.

Other programs and other users of this machine, and any page open in the same browser, can reach a port of loopback. So:
every path begins with a random token; the Host header must be this server's own (a foreign name that was made to
resolve to 127.0.0.1 brings its own name along); requests that another site started are refused; nothing of a request is
ever made into a path of a file; and the page may load from here alone.
Source: OWASP Cheat Sheet Series (Content Security Policy; HTTP headers); W3C, Fetch Metadata Request Headers.
"""

from __future__ import annotations

import hmac
import json
import logging
import math
import secrets
import warnings
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rasterio.errors import NotGeoreferencedWarning

from pipeline.errors import GridError, OutputError, PipelineError
from pipeline.view.answers import Answers, measure_ground
from pipeline.view.tiles import tile_grid

HOST = "127.0.0.1"
_LOG = logging.getLogger(__name__)
_TOKEN_BYTES = 24
_PATIENCE_S = 60
_MOST_POINTS = 2000
_JSON, _TEXT = "application/json; charset=utf-8", "text/plain; charset=utf-8"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}
# Connections that may wait to be accepted: a page opens six, a test of a proxy some hundred.
_BACKLOG = 512


class ViewServer:
    """A server that listens when made and answers while :meth:`serve` runs."""

    def __init__(self, answers: Answers, *, port: int = 0, token: str | None = None) -> None:
        """Listen on loopback.

        Port 0 stands for any that is free; the token, by default random, is the secret part of the address.

        Raises:
            OutputError: the port is taken.
        """
        self.token = token or secrets.token_urlsafe(_TOKEN_BYTES)
        self._answers = answers
        try:
            self._http = _Http((HOST, port), answers=answers, token=self.token)
        except OSError as err:
            fix = "choose another with --port"
            raise OutputError(f"cannot listen on port {port}", got=err.strerror or err, fix=fix) from err

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._http.server_port

    @property
    def url(self) -> str:
        """The page's address, token and all."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    def serve(self) -> None:
        """Answer until interrupted or stopped from another thread."""
        # rasterio silences this note around every warp and PNG with a context that threads take from each other.
        warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
        self._http.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End :meth:`serve`; from another thread."""
        self._http.shutdown()

    def close(self) -> None:
        """Stop listening and close all files."""
        self._http.server_close()
        self._answers.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True  # a browser keeps its connections open: they must not hold the program back
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(self, address: tuple[str, int], *, answers: Answers, token: str) -> None:
        self.answers = answers
        self.token = token
        super().__init__(address, _Handler)
        self.policy = content_policy(answers.basemap.url if answers.basemap else None)

    def handle_error(self, *_: object) -> None:
        """A connection that broke is for developers; the terminal stays clean."""
        _LOG.debug("a connection failed", exc_info=True)


def content_policy(basemap: str | None) -> str:
    """What the page may load: its own files, and pictures of the basemap's host where the user named one.

    >>> content_policy("https://tile.example.org/{z}/{x}/{y}.png").split("; ")[4]
    "img-src 'self' https://tile.example.org"
    """
    pictures = "img-src 'self'"
    if basemap:
        parts = urlsplit(basemap)
        pictures += f" {parts.scheme}://{parts.netloc}"
    own = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
    return f"{own}; {pictures}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"  # connections are kept: a page asks for dozens of tiles
    disable_nagle_algorithm = True
    timeout = _PATIENCE_S

    def version_string(self) -> str:
        """The name of the server, without versions."""
        return "landcover"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """For developers; the token is left out."""
        _LOG.debug("%s", (format % args).replace(self.server.token, "TOKEN"))

    def do_GET(self) -> None:
        """Answer, or refuse."""
        self._send(*self._answer())

    def do_HEAD(self) -> None:
        """The same without a body."""
        self._send(*self._answer())

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        path, _, query = self.path.partition("?")
        token, slash, name = path.removeprefix("/").partition("/")
        if status := self._refused(token + slash):
            return _refusal(status)
        try:
            found = answer(self.server.answers, name, parse_qs(query))
        except (ValueError, GridError) as err:
            return HTTPStatus.BAD_REQUEST, _JSON, _json({"error": str(err)})
        except PipelineError as err:
            return HTTPStatus.INTERNAL_SERVER_ERROR, _JSON, _json({"error": str(err)})
        except Exception as err:  # noqa: BLE001 - the answer says why; other requests are served
            _LOG.debug("cannot answer", exc_info=True)
            return HTTPStatus.INTERNAL_SERVER_ERROR, _JSON, _json({"error": f"{type(err).__name__}: {err}"})
        return (HTTPStatus.OK, *found) if found else _refusal(HTTPStatus.NOT_FOUND)

    def _refused(self, start: str) -> HTTPStatus | None:
        if self.headers.get("Host", "") not in {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}:
            return HTTPStatus.MISDIRECTED_REQUEST
        # "none" is an address typed or opened from outside a page; a browser says "cross-site" where a page asked. A
        # link that the user follows ("document": a whole page, in no frame) may lie on any page.
        started = self.headers.get("Sec-Fetch-Site", "none")
        if started not in {"none", "same-origin"} and self.headers.get("Sec-Fetch-Dest") != "document":
            return HTTPStatus.FORBIDDEN
        known = hmac.compare_digest(start.encode(), f"{self.server.token}/".encode())
        return None if known else HTTPStatus.NOT_FOUND

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            # The token is another one next time; until then a tile stays what it is.
            "Cache-Control": "private, max-age=3600" if status == HTTPStatus.OK else "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def answer(answers: Answers, name: str, query: dict[str, list[str]]) -> tuple[str, bytes] | None:
    """(content type, bytes) for what comes after the token; None where there is nothing.

    Raises:
        ValueError: numbers that are none.
        GridError: a tile that does not exist.
        InputError: a file cannot be read.
    """
    if name in static_files():
        return static_files()[name]
    if name == "maps.json":
        return _JSON, _json(answers.describe())
    match name.split("/"):
        case ["tile", number, layer, z, x, y]:
            return answers.tile(int(number), layer, tile_grid(int(z), int(x), int(y)))
        case ["point", number]:
            found = answers.point(int(number), _number(query, "lon"), _number(query, "lat"))
            return (_JSON, _json(found)) if found else None
        case ["measure"]:
            return _JSON, _json(measure_ground(_points(query), closed=query.get("closed") == ["1"]))
    return None


@cache
def static_files() -> dict[str, tuple[str, bytes]]:
    """(content type, bytes) of the page and what it loads, by address: what is not in here is not served."""
    files = {file.name: file for file in resources.files("pipeline.view").joinpath("static").iterdir()}
    kinds = {name: _KINDS.get(Path(name).suffix) for name in files}
    found = {name: (f"{kinds[name]}; charset=utf-8" if kinds[name] else "image/svg+xml", file.read_bytes())
             for name, file in files.items()}  # fmt: skip
    return {"" if name == "index.html" else name: entry for name, entry in found.items()}


def _number(query: dict[str, list[str]], key: str) -> float:
    value = float(query.get(key, [""])[0])
    if not math.isfinite(value):
        raise ValueError(f"{key} is not finite")
    return value


def _points(query: dict[str, list[str]]) -> list[tuple[float, float]]:
    """``points=lon,lat;lon,lat`` as numbers."""
    words = [word.split(",") for word in query.get("points", [""])[0].split(";")]
    points = [(float(lon), float(lat)) for lon, lat in words]
    if len(points) > _MOST_POINTS or not all(math.isfinite(value) for point in points for value in point):
        raise ValueError(f"points are not finite, or more than {_MOST_POINTS}")
    return points


def _json(data: Any) -> bytes:
    return json.dumps(data, default=str).encode()


def _refusal(status: HTTPStatus) -> tuple[HTTPStatus, str, bytes]:
    return status, _TEXT, f"{status.phrase}\n".encode()
