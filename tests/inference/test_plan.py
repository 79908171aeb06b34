from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.errors import ModelWarning
from pipeline.inference import plan
from pipeline.inference.engine import fast_bfloat16
from pipeline.inference.plan import Plan, estimate, journal_key, make_plan, total_stride_px
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

BUNDLE = small_bundle()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return noise_scene(tmp_path / "scene.tif", height=300, width=200)


def test_an_estimate_grows_with_what_is_asked(scene: Scene) -> None:
    small = estimate(BUNDLE, scene, MapSettings(threads=1, tile_px=64))
    large = estimate(BUNDLE, scene, MapSettings(threads=1, tile_px=256, probabilities=True))
    assert small.disk_bytes == 2 * 300 * 200
    assert large.disk_bytes == 6 * 300 * 200
    assert 400e6 < small.memory_bytes < large.memory_bytes
    assert 0 < small.seconds < 600
    assert (small.plan.choice.engine, small.plan.tile_px) == ("torch", 64)


def test_a_plan_survives_the_journal(scene: Scene) -> None:
    made = make_plan(BUNDLE, scene, MapSettings(threads=1, tile_px=64, dtype="float32"))
    assert Plan.from_json(made.to_json()) == made


def test_bfloat16_is_measured_and_left_with_a_warning(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.inference.engine.fast_bfloat16", lambda _: True)
    monkeypatch.setattr(plan, "class_agreement", lambda *_: 0.98)
    with pytest.warns(ModelWarning, match=r"scene: bfloat16 gives 98\.00 %.*mapped in float32"):
        mapped = predict_scene(BUNDLE, scene, out=tmp_path / "out", settings=MapSettings(threads=1, tile_px=64))
    mapped.close()
    assert mapped.plan.choice.dtype == "float32"
    monkeypatch.setattr(plan, "class_agreement", lambda *_: 0.999)
    made = make_plan(BUNDLE, scene, MapSettings(threads=1, tile_px=64))
    assert (made.choice.dtype, made.agreement, made.remark) == ("bfloat16", 0.999, "")


def test_a_type_asked_for_by_name_stays_and_is_warned_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "class_agreement", lambda *_: 0.98)
    made = make_plan(BUNDLE, scene, MapSettings(threads=1, tile_px=64, dtype="bfloat16"))
    assert made.choice.dtype == "bfloat16"
    assert "98.00 %" in made.remark


def test_auto_is_bfloat16_where_the_processor_computes_in_it(scene: Scene) -> None:
    made = make_plan(BUNDLE, scene, MapSettings(threads=1, tile_px=64), trust=True)
    assert (made.choice.dtype == "bfloat16") == fast_bfloat16(made.choice.device)


def test_a_member_with_share_0_is_neither_run_nor_planned_for() -> None:
    from dataclasses import replace

    from pipeline.model.spec import NetworkSpec
    from tests.inference.models import bundle_of

    alone = bundle_of(NetworkSpec(3, 4, encoder="none", spectral_channels=8, dropout=0.0))
    both = replace(alone, members=(*alone.members, *BUNDLE.members), shares=(1.0, 0.0))
    assert total_stride_px(both) == total_stride_px(alone) == 1
    assert len(both.network().members) == 1


def test_the_key_is_of_what_rows_depend_on(scene: Scene) -> None:
    plain = MapSettings(tile_px=64)
    key = journal_key(BUNDLE, scene, plain)
    assert journal_key(BUNDLE, scene, MapSettings(tile_px=64, polygons=True, mosaic="first")) == key
    assert journal_key(BUNDLE, scene, MapSettings(tile_px=32)).differs_in(key.parts) == ["settings"]
    assert journal_key(small_bundle(seed=1), scene, plain).differs_in(key.parts) == ["model"]


def test_an_area_is_known_by_its_file_and_not_by_its_layer(scene: Scene, tmp_path: Path) -> None:
    area = tmp_path / "area.gpkg"
    wanted = MapSettings(aoi=f"{area}|layername=fields")
    keys = []
    for content in ("one", "two"):
        area.write_text(content)
        keys.append(journal_key(BUNDLE, scene, wanted))
    assert keys[0].differs_in(keys[1].parts) == ["settings"]
