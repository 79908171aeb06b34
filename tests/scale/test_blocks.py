"""What a worker is given: how a scene is cut into blocks, whose blocks it refuses, and which engine it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.inference import plan as plans
from pipeline.inference.engine import Choice
from pipeline.inference.plan import Plan
from pipeline.inference.settings import MapSettings
from pipeline.inference.steps import SceneSteps, step_blocks
from pipeline.scale import cluster
from pipeline.scale.cluster import SceneTask, map_block, plan_task, who_sees
from pipeline.scale.scenes import map_over_dask
from pipeline.scenes.geotiff import open_geotiff

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scale.conftest import World

PLAN = Plan(32, 8, 4, 1, 1, Choice("torch", "float32", "cpu"))


class Sizes:
    """Steps that have only sizes."""

    def __init__(self, pixels: list[int]) -> None:
        self.pixels = dict(enumerate(pixels))


@given(
    pixels=st.lists(st.integers(1, 50), min_size=1, max_size=40), done=st.sets(st.integers(0, 39)),
    size=st.integers(1, 120),
)  # fmt: skip
def test_blocks_partition_the_steps_and_keep_their_size(pixels: list[int], done: set[int], size: int) -> None:
    left = [step for step in range(len(pixels)) if step not in done]
    cut = step_blocks(Sizes(pixels), left, block_px=size)
    assert [step for block in cut for step in block] == left
    for block in cut:
        assert list(block) == list(range(block[0], block[-1] + 1))
        assert sum(pixels[step] for step in block) <= size or len(block) == 1


def test_a_tile_larger_than_a_block_is_a_block_of_its_own(world: World) -> None:
    scene = open_geotiff(world.add_scene("a", height=160, width=128))
    steps = SceneSteps(None, scene, MapSettings(), PLAN)  # type: ignore[arg-type]
    assert [len(block) for block in step_blocks(steps, list(steps.pixels), block_px=1000)] == [1] * 20
    assert [len(block) for block in step_blocks(steps, list(steps.pixels), block_px=3 * 1024 + 5)] == [3] * 6 + [2]


def task_of(world: World, **changes: object) -> SceneTask:
    scene = open_geotiff(world.add_scene("a", height=96, width=64))
    settings = MapSettings(engine="torch", dtype="float32", device="cpu", threads=1, tile_px=32, halo_px=8)
    return replace(SceneTask(world.model, scene, settings), **changes)


def test_a_task_of_another_version_is_refused(world: World) -> None:
    pytest.importorskip("distributed")
    task = task_of(world, version="0.0.0")
    for call in (lambda: map_block(task, PLAN, (0,)), lambda: plan_task(task)):
        with pytest.raises(ConfigError, match=f"worker with another version; got {__version__}; expected 0.0.0"):
            call()


class Client:
    """Two workers that see everything, the second with a version of its own."""

    def __init__(self, version: str) -> None:
        self.version = version

    def wait_for_workers(self, number: int) -> None:
        pass

    def run(self, *_: object, **__: object) -> dict[str, tuple[str, bool]]:
        return {"tcp://a:1": (__version__, True), "tcp://b:1": (self.version, True)}


def test_a_later_worker_of_another_version_writes_no_maps(tmp_path: Path) -> None:
    assert who_sees(Client(__version__), tmp_path)
    assert not who_sees(Client("0.0.0"), tmp_path)


def test_other_versions_are_refused_before_scenes_open() -> None:
    pytest.importorskip("distributed")

    def scenes() -> object:
        pytest.fail("a scene was opened")
        yield

    with pytest.raises(ConfigError, match=r"workers with another version; got 0\.0\.0"):
        map_over_dask(scenes(), bundle=None, client=Client("0.0.0"), report=print)  # type: ignore[arg-type]


def test_scenes_share_one_engine_until_another_is_chosen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    made: list[int] = []
    real = plans.engine_of

    def noted(*given: object, **named: object) -> object:
        made.append(cluster._engine.cache_info().currsize)
        return real(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(plans, "engine_of", noted)
    cluster._engine.cache_clear()
    task = task_of(world)
    for plan in (PLAN, replace(PLAN, tile_px=48, columns=1), replace(PLAN, agreement=0.999)):
        assert map_block(task, plan, (0,)).steps
    assert made == [0]
    assert map_block(task, replace(PLAN, choice=Choice("torch", "bfloat16", "cpu")), (0,)).steps
    assert made == [0, 0]
