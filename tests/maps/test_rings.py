"""Regular outlines: right angles from ragged ones, and what is better about them than fewer points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from scipy import ndimage

from pipeline.accuracy.assess_objects import polis
from pipeline.maps.objects import vertices
from pipeline.maps.rings import iou, regular_outlines

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

L_SHAPE = shapely.Polygon([(0, 0), (20, 0), (20, 8), (9, 8), (9, 16), (0, 16)])


def many(items: list[Any]) -> NDArray[Any]:
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found


def masked(shape: Any, *, pixel: float, noise: float = 0.0, seed: int = 0) -> Any:
    """The outline along pixel edges that a map of a shape has; with noise a ragged one."""
    left, bottom, right, top = shapely.bounds(shape)
    transform = Affine(pixel, 0, left - 8 * pixel, 0, -pixel, top + 8 * pixel)
    size = int((top - bottom) / pixel) + 17, int((right - left) / pixel) + 17
    mask = rasterize([shape], out_shape=size, transform=transform).astype(np.float64)
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(size), 1.5) * 4 * noise
    inside = ndimage.gaussian_filter(mask, 0.8) + rough > 0.5
    found = [
        shapely.geometry.shape(item) for item, _ in shapes(inside.astype(np.uint8), mask=inside, transform=transform)
    ]
    return shapely.Polygon(max(found, key=shapely.area).exterior)


def turns(polygon: Any) -> NDArray[np.float64]:
    """Angle of each corner in degrees, away from a right one."""
    step = np.diff(shapely.get_coordinates(polygon.exterior), axis=0)
    angle = np.degrees(np.arctan2(step[:, 1], step[:, 0]))
    turn = np.abs((np.roll(angle, -1) - angle + 180) % 360 - 180)
    return np.asarray(np.abs(turn - 90))


@pytest.mark.parametrize("degrees", [0, 17, 45, 80])
def test_a_ragged_l_becomes_an_l(degrees: int) -> None:
    truth = shapely.affinity.rotate(L_SHAPE, degrees)
    (made,) = regular_outlines(many([masked(truth, pixel=0.5, noise=0.1)]), tolerance=0.75)
    assert vertices(many([made]))[0] == 6
    assert turns(made).max() < 1e-6
    assert iou(made, truth) > 0.94


def test_a_rectangle_along_the_pixels_stays_what_it_is() -> None:
    box = shapely.box(3, 4, 11, 9)
    (made,) = regular_outlines(many([box]), tolerance=1.5)
    assert shapely.equals(made, box)


def test_round_objects_keep_their_shape() -> None:
    disc = shapely.Point(0, 0).buffer(15)
    (made,) = regular_outlines(many([masked(disc, pixel=1.0)]), tolerance=1.5)
    assert iou(made, disc) > 0.93
    assert turns(made).min() > 20


def test_courtyards_stay_and_pinholes_go() -> None:
    yard = shapely.Polygon(
        shapely.box(0, 0, 30, 30).exterior, [shapely.box(8, 8, 20, 20).exterior, shapely.box(24, 24, 25, 25).exterior]
    )
    (made,) = regular_outlines(many([yard]), tolerance=1.5)
    assert shapely.get_num_interior_rings(made) == 1
    assert made.area == pytest.approx(900 - 144)


def test_without_right_angles_it_is_douglas_peucker() -> None:
    raw = masked(shapely.affinity.rotate(L_SHAPE, 30), pixel=0.5, noise=0.1)
    (made,) = regular_outlines(many([raw]), tolerance=0.75, right_angles=False)
    assert shapely.equals(made, shapely.simplify(raw, 0.75))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 4.0))
def test_whatever_the_mask_outlines_are_valid_polygons(seed: int, tolerance: float) -> None:
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((30, 30)), 2)
    inside = rough > np.percentile(rough, 60)
    raw = [shapely.geometry.shape(item) for item, _ in shapes(inside.astype(np.uint8), mask=inside)]
    made = regular_outlines(many(raw), tolerance=tolerance)
    assert shapely.is_valid(made).all()
    assert (shapely.get_type_id(made) == shapely.GeometryType.POLYGON).all()
    assert (shapely.area(made) > 0).all()


@pytest.mark.parametrize(("pixel", "noise"), [(0.5, 0.1), (0.5, 0.25), (1.0, 0.1), (1.0, 0.25)])
def test_real_footprints_come_back_better_than_simplified(shared_data: Path, pixel: float, noise: float) -> None:
    """At the IoU with the truth that Douglas-Peucker keeps: fewer corners and a smaller PoLiS distance."""
    folder = shared_data / "buildings"
    frames = [gpd.read_file(folder / name).explode() for name in ("pair_truth.gpkg", "atlanta_buildings.gpkg")]
    truth = [shape for frame in frames for shape in frame.geometry if shape.area > 20]
    raw = many([masked(shape, pixel=pixel, noise=noise, seed=k) for k, shape in enumerate(truth)])

    def worth(made: NDArray[Any]) -> tuple[float, float, float]:
        pairs = list(zip(made, truth, strict=True))
        return (
            float(np.mean([iou(*pair) for pair in pairs])),
            float(np.mean([polis(*pair) for pair in pairs])),
            float(vertices(made).mean()),
        )

    ours = [worth(regular_outlines(raw, tolerance=share * pixel)) for share in (1.0, 1.5, 2.0)]
    for peucker in (worth(shapely.simplify(raw, share * pixel)) for share in (1.0, 1.5, 2.0)):
        assert any(one[0] >= peucker[0] and one[1] < peucker[1] and one[2] < peucker[2] for one in ours), peucker
