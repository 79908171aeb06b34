"""The server gives what it was given to show, to whoever knows its address, and nothing to anyone else."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time

import numpy as np
import pytest

from pipeline.errors import OutputError
from pipeline.view.answers import Answers
from pipeline.view.server import ViewServer, content_policy, static_files
from tests.fakes.viewed_maps import LIBRARY_NOTES
from tests.view.test_tiles import place_over

pytestmark = LIBRARY_NOTES


def ask(server, path, *, method="GET", **headers):
    """(status, headers, body) of a request to exactly this path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, dict(reply.getheaders()), body


def test_the_page_and_what_it_needs_are_there(served):
    for name, (kind, _) in static_files().items():
        status, headers, body = ask(served, f"/{served.token}/{name}")
        assert (status, headers["Content-Type"]) == (200, kind)
        assert body
    status, _, body = ask(served, f"/{served.token}/maps.json")
    assert json.loads(body)["title"] == "a <b>title</b>"


def test_the_library_travels_with_its_licence(served):
    status, headers, body = ask(served, f"/{served.token}/leaflet.LICENSE.txt")
    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert b"BSD 2-Clause" in body


def test_two_hundred_connections_at_once_are_served(world, served, capfd):
    z, x, y = place_over(world.grid, 14)
    opened = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(200)]
    request = f"GET /{served.token}/tile/0/lc/{z}/{x}/{y} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n"
    for connection in opened:
        connection.sendall(request.encode())
    assert {connection.recv(12) for connection in opened} == {b"HTTP/1.1 200"}
    for connection in opened:
        connection.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("end", ["close", "reset", "nonsense"])
def test_a_connection_that_breaks_leaves_the_terminal_clean(world, served, capfd, end):
    z, x, y = place_over(world.grid, 14)
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    if end == "reset":  # the kernel sends RST, not FIN
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asked = f"GET /{served.token}/tile/0/true/{z}/{x}/{y} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n"
    connection.sendall(b"\xff\xfe\x00 nonsense\r\n\r\n" if end == "nonsense" else asked.encode() * 20)
    connection.close()
    time.sleep(0.3)
    assert ask(served, f"/{served.token}/")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_failing_answer_is_told_to_who_asked(capfd):
    class Broken:
        basemap = None

        def describe(self):
            raise RuntimeError("no such thing")

        def close(self):
            pass

    server = ViewServer(Broken())
    threading.Thread(target=server.serve, daemon=True).start()
    status, _, body = ask(server, f"/{server.token}/maps.json")
    assert (status, json.loads(body)["error"]) == (500, "RuntimeError: no such thing")
    assert capfd.readouterr().err == ""
    server.stop()
    server.close()


@pytest.mark.parametrize("layer", ["lc", "conf", "probability-2"])
def test_a_tile_is_the_stored_bytes(world, served, layer):
    z, x, y = place_over(world.grid, 15)
    status, headers, body = ask(served, f"/{served.token}/tile/0/{layer}/{z}/{x}/{y}")
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    values = np.frombuffer(body, dtype=np.uint8)
    assert values.size == 256 * 256
    given = {"lc": world.codes, "conf": world.confidence, "probability-2": world.probabilities[1]}[layer]
    assert set(values) <= set(given.ravel())


def test_a_picture_of_the_scene_is_a_png(world, served):
    z, x, y = place_over(world.grid, 14)
    status, headers, body = ask(served, f"/{served.token}/tile/0/true/{z}/{x}/{y}")
    assert (status, headers["Content-Type"], body[:4]) == (200, "image/png", b"\x89PNG")


@pytest.mark.parametrize(
    "start", ["", "/", "/favicon.ico", "/maps.json", "/{wrong}/", "/{wrong}/maps.json", "/{token}"]
)
def test_without_the_token_there_is_nothing(served, start):
    path = start.format(wrong="x" * len(served.token), token=served.token) or "/index.html"
    status, _, body = ask(served, path)
    assert status == 404
    assert served.token.encode() not in body


@pytest.mark.parametrize(
    "name",
    [
        "../server.py", "..%2fserver.py", "%2e%2e/server.py", "static/index.html", "/etc/passwd", "//etc/passwd",
        "..\\..\\x", "viewer.js/../../server.py", "tile/0/..%2f..%2fetc%2fpasswd/1/0/0", "tile/0/lc/1/0",
        "tile/7/lc/1/0/0", "point/3?lon=1&lat=1", "leaflet.js.map", "//[x",
    ],
)  # fmt: skip
def test_other_paths_are_refused(served, name):
    assert ask(served, f"/{served.token}/{name}")[0] == 404


@pytest.mark.parametrize("path", ["//[", "http://evil.example/", "/%00", "*"])
def test_odd_requests_are_refused(served, path):
    assert ask(served, path)[0] in {404, 421}


@pytest.mark.parametrize(
    "name",
    [
        "tile/0/lc/1/9/0", "tile/0/lc/x/0/0", "tile/0/lc/99/0/0", "tile/a/lc/1/0/0", "point/0?lon=nan&lat=1", "point/0",
        "measure?points=1", "measure?points=inf,1", "measure?points=" + ";".join(["1,1"] * 2001),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_a_bad_request(served, name):
    status, _, body = ask(served, f"/{served.token}/{name}")
    assert status == 400
    assert json.loads(body)["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "0.0.0.0:{port}", ""]
)
def test_other_hosts_are_refused(served, host):
    status, _, body = ask(served, f"/{served.token}/maps.json", Host=host.format(port=served.port))
    assert status == 421
    assert b"title" not in body


def test_localhost_is_a_name_of_it(served):
    assert ask(served, f"/{served.token}/", Host=f"localhost:{served.port}")[0] == 200


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_requests_that_another_site_started_are_refused(served, site, status):
    assert ask(served, f"/{served.token}/maps.json", Sec_Fetch_Site=site)[0] == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_written(served, method):
    assert ask(served, f"/{served.token}/", method=method)[0] == 501


def test_a_link_to_it_may_be_followed_from_anywhere(served):
    assert ask(served, f"/{served.token}/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200
    assert ask(served, f"/{served.token}/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="iframe")[0] == 403


def test_head_has_no_body(served):
    status, headers, body = ask(served, f"/{served.token}/maps.json", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


def test_the_page_may_load_from_here_alone(served):
    _, headers, _ = ask(served, f"/{served.token}/")
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert {rules[f"{what}-src"] for what in ("script", "style", "img", "connect")} == {"'self'"}
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]


def test_a_basemap_adds_its_host_and_no_more():
    rules = content_policy("https://tile.example.org:8443/a/{z}/{x}/{y}.png?k=1").split("; ")
    assert rules[4] == "img-src 'self' https://tile.example.org:8443"


def test_it_listens_on_loopback_alone(served):
    assert served._http.server_address[0] == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((address, served.port), timeout=2).close()


def test_every_server_has_another_token(answers):
    tokens = set()
    for _ in range(3):
        server = ViewServer(Answers(answers.maps, title=""))
        tokens.add(server.token)
        server.close()
    assert len(tokens) == 3
    assert all(len(token) >= 32 for token in tokens)


def test_a_port_that_is_taken_is_said(served):
    with pytest.raises(OutputError, match="--port"):
        ViewServer(Answers([], title=""), port=served.port)


def test_a_damaged_file_is_an_answer_and_not_the_end(tmp_path):
    from pipeline.view.answers import open_viewed
    from tests.fakes.viewed_maps import write_world

    own = write_world(tmp_path, "a")
    server = ViewServer(Answers([open_viewed(own.class_map, name="a")], title=""))
    threading.Thread(target=server.serve, daemon=True).start()
    own.class_map.write_bytes(b"II*\0")
    z, x, y = place_over(own.grid, 14)
    status, _, body = ask(server, f"/{server.token}/tile/0/lc/{z}/{x}/{y}")
    assert status == 500
    assert "a_lc.tif" in json.loads(body)["error"]
    assert ask(server, f"/{server.token}/")[0] == 200
    server.stop()
    server.close()
