"""Maps to look at, and a server that shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.scenes.opening import open_scene
from pipeline.view.answers import Answers, open_viewed
from pipeline.view.server import ViewServer
from tests.fakes.viewed_maps import GRIDS, World, write_world


@pytest.fixture(scope="session", params=sorted(GRIDS))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A map in metres, and one in degrees."""
    return write_world(tmp_path_factory.mktemp("viewed"), request.param, grid=GRIDS[request.param])


@pytest.fixture(scope="session")
def answers(world: World) -> Iterator[Answers]:
    """What can be said of it."""
    opened = Answers([open_viewed(world.class_map, name="here", scene=open_scene(world.scene))], title="a <b>title</b>")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def served(answers: Answers) -> Iterator[ViewServer]:
    """A server that answers."""
    server = ViewServer(answers)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(timeout=10)
    server.close()
