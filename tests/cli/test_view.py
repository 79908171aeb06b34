"""``landcover view`` as a program: it says its address, answers, and ends well."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys

import pytest

from pipeline.cli import main
from tests.fakes.viewed_maps import write_world


def start(*arguments):
    code = f"import sys; from pipeline.cli import main; sys.exit(main({['view', *map(str, arguments)]!r}))"
    environment = {key: value for key, value in os.environ.items() if key not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_it_prints_its_address_and_ends_on_a_signal(tmp_path):
    own = write_world(tmp_path, "here")
    with start(own.class_map, "--json", "--no-browser") as program:
        lines = []
        while not lines or lines[-1] != "}\n":
            lines.append(program.stdout.readline())
            assert lines[-1], program.stderr.read()
        document = json.loads("".join(lines))
        assert document["maps"] == ["here"]
        connection = http.client.HTTPConnection("127.0.0.1", document["port"], timeout=120)
        connection.request("GET", f"/{document['url'].split('/')[3]}/maps.json")
        assert json.load(connection.getresponse())["maps"][0]["name"] == "here"
        connection.close()
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=240) == 0
        assert program.stderr.read() == ""


def test_an_error_is_one_line_and_status_2(tmp_path, capsys):
    assert main(["view", str(tmp_path / "none.tif")]) == 2
    out, err = capsys.readouterr()
    assert "none.tif" in err
    assert err.count("\n") == 1
    assert out == ""
