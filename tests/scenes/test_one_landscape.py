"""One landscape, delivered in every form: the same reflectance from all, and one model maps all to the same codes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.legend import scheme_for
from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.model.checks import check_source
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.opening import open_scene, treatment
from pipeline.scenes.stac import open_item
from tests.fakes.landsat import Landsat, tar_landsat, write_landsat
from tests.fakes.landscape import by_key, far_from_rims, reflectance
from tests.fakes.safe import Safe, write_safe, zip_safe
from tests.fakes.stac_items import SIZE_M, earth_search_item, field_of, landsat_item, planetary_computer_item, scl
from tests.fakes.stac_server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.scenes.scene import Scene

S2_BANDS = (
    "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09", "swir16",
    "swir22",
)  # fmt: skip
OLI_BANDS = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
# Half a DN, and the rounding of float32.
HALF_DN = {"sentinel-2": 0.5e-4 + 1e-7, "landsat-oli": 0.5 * 2.75e-5 + 1e-7}
# An interpolated pixel sees what lies within half a pixel of its band.
REACH_M = {"coastal": 30, "nir09": 30} | dict.fromkeys(
    ("rededge071", "rededge075", "rededge078", "nir08", "swir16", "swir22"), 10
)


@pytest.fixture(scope="module")
def sentinel2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    """Every form of the Sentinel-2 acquisition."""
    folder = tmp_path_factory.mktemp("forms")
    old = Safe(baseline="02.14", size_m=SIZE_M, truth=by_key, scl=scl())
    new = replace(old, baseline="05.10")
    per_band = {key: -1000 + 10 * number for number, key in enumerate(new.applied)}
    field = field_of(reflectance)
    with serve(folder / "served") as fake:
        planetary_old = planetary_computer_item(
            fake.folder, fake.file_url, name="S2A_old", baseline="02.14", field=field
        )
        yield {
            "SAFE 02.14": open_scene(write_safe(folder / "a", old)),
            "SAFE 02.14, old naming": open_scene(write_safe(folder / "a2", replace(old, naming="old"))),
            "SAFE 05.10": open_scene(write_safe(folder / "b", new)),
            "SAFE 05.10 zip": open_scene(zip_safe(write_safe(folder / "c", new))),
            "SAFE with an offset of its own for every band": open_scene(
                write_safe(folder / "d", replace(new, offsets=per_band))
            ),
            "Earth Search": open_item(earth_search_item(fake.folder, fake.file_url, field=field)),
            "Planetary Computer": open_item(planetary_computer_item(fake.folder, fake.file_url, field=field)),
            "Planetary Computer 02.14": open_item(planetary_old),
        }


@pytest.fixture(scope="module")
def landsat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    """Every form of the Landsat acquisition."""
    folder = tmp_path_factory.mktemp("landsat")
    what = Landsat(pixels=SIZE_M // 30, truth=reflectance)
    with serve(folder / "served") as fake:
        yield {
            "Landsat folder": open_scene(write_landsat(folder / "a", what)),
            "Landsat tar": open_scene(tar_landsat(write_landsat(folder / "b", what))),
            "Landsat STAC": open_item(landsat_item(fake.folder, fake.file_url, field=field_of(reflectance))),
        }


def test_every_form_gives_the_true_reflectance(sentinel2: dict[str, Scene], landsat: dict[str, Scene]) -> None:
    for what, scene in (sentinel2 | landsat).items():
        names = S2_BANDS if scene.sensor == "sentinel-2" else OLI_BANDS
        chosen = scene.select(names)
        with chosen.open() as reader:
            raster = reader.read(scene.grid.window)
        size, left, top = scene.grid.pixel_size[0], scene.grid.transform.c, scene.grid.transform.f
        rows, cols = np.mgrid[0 : scene.grid.height, 0 : scene.grid.width]
        x, y = left + (cols + 0.5) * size, top - (rows + 0.5) * size
        for name in names:
            own = far_from_rims(x, y, metres=REACH_M.get(name, 0) if size == 10 else 0)
            error = np.abs(raster.band(name) - reflectance(name, x, y))[own & raster.valid]
            assert error.size > 0.5 * raster.valid.size, (what, name)
            assert error.max() <= HALF_DN[scene.sensor], (what, name)


def test_every_form_means_the_same_and_lies_on_the_same_grid(
    sentinel2: dict[str, Scene], landsat: dict[str, Scene]
) -> None:
    assert {treatment(scene) for scene in (sentinel2 | landsat).values()} == {"surface reflectance"}
    assert len({scene.grid for scene in sentinel2.values()}) == 1
    assert len({scene.grid for scene in landsat.values()}) == 1


def test_one_model_maps_all_forms_to_identical_codes(sentinel2: dict[str, Scene], tmp_path: Path) -> None:
    bundle = model_of(S2_BANDS)
    settings = MapSettings(engine="torch", dtype="float32", device="cpu", threads=1, tile_px=128, halo_px=16)
    codes = {}
    for number, (what, scene) in enumerate(sentinel2.items()):
        fitting = check_source(bundle, scene)
        with predict_scene(bundle, fitting, out=tmp_path / str(number), settings=settings) as prediction:
            codes[what] = prediction.codes.read(scene.grid.window)
    reference = codes["SAFE 05.10"]
    assert set(np.unique(reference)) == {0, *bundle.scheme.codes}
    assert (reference == 0).mean() == pytest.approx(200 / 120**2)  # the cloud
    for what, found in codes.items():
        np.testing.assert_array_equal(found, reference, err_msg=what)


def model_of(bands: tuple[str, ...]) -> ModelBundle:
    """A small U-Net of random weights, drawn so that it uses all its classes."""
    torch.manual_seed(4)
    spec = NetworkSpec(
        len(bands), 4, depth=2, decoder_channels=(8, 8), spectral_channels=16, spectral_kernels=(1, 1), dropout=0.0
    )
    network = build_network(spec).eval()
    torch.nn.init.normal_(network.head.weight, std=1.0)
    torch.nn.init.zeros_(network.head.bias)
    network.requires_grad_(requires_grad=False)
    return ModelBundle(
        members=(network,),
        scheme=scheme_for(["water", "trees", "crops", "built"])[0],
        preprocess=Preprocess.from_statistics(bands=bands, mean=[0.22] * len(bands), std=[0.11] * len(bands)),
        value_range=((0.0, 0.5),) * len(bands),
        units=("reflectance",) * len(bands),
        gsd_m=10.0,
        sources=(TrainedOn("sentinel-2", "L2A", "05.10", "SAFE"),),
    )
