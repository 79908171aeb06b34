"""Figures of class codes or values against the reference, such as that of the held-out polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.assess_estimators import agreement, cross_tabulate
from pipeline.accuracy.class_maps import values_at
from pipeline.errors import InputError
from pipeline.files import csv_text
from pipeline.legend import NODATA, ClassScheme
from pipeline.raster import open_raster

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels

# Below so many test polygons or pixels a figure says nothing: one polygon more or less moves it by a third.
FEW_POLYGONS, FEW_PIXELS = 3, 30
# A figure of 100 % from fewer polygons is luck as likely as skill: of ten polygons that a map gets right, the lower end
# of the 95 % interval is 74 % (rule of three). Source: Hanley & Lippman-Hand (1983), JAMA 249, 1743-1745.
CERTAIN_POLYGONS = 10
FORESTS = ("forest (bands)", "forest (neighbourhoods)")
HOLD_OUT = "hold-out of training polygons, not a probability sample"
SAMPLING = (
    "Figures on held-out training polygons, by spatial blocks: not a probability sample of the map. They compare "
    "methods and warn of failures; they are not the map's accuracy and give no intervals and no area estimates. For "
    "figures to publish: landcover design MAP -o sample.gpkg; fill in its field reference; then landcover assess MAP "
    "--reference sample.gpkg --field reference --design sample_design.json."
)


@dataclass(frozen=True)
class Score:
    """Figures of one method on the test pixels."""

    method: str  # "network", or one of FORESTS
    overall_accuracy: float  # Share of test pixels right
    macro_f1: float  # Mean of the classes' F1
    kappa: float | None  # Cohen's kappa, None where it is not defined
    users: dict[str, float | None]  # User's accuracy per class name; None where the class was never mapped
    producers: dict[str, float | None]  # Producer's accuracy per class name; None where the class has no test pixel
    f1: dict[str, float | None]  # F1 per class name
    iou: dict[str, float | None]  # Intersection over union per class name
    matrix: tuple[tuple[int, ...], ...]  # Counts, map rows x reference columns, in the order of the legend
    # Test polygons per class name; empty where the reference is no polygons
    polygons: dict[str, int] = field(default_factory=dict)

    @property
    def pixels(self) -> dict[str, int]:
        """Test pixels per class name."""
        return dict(zip(self.f1, np.asarray(self.matrix).sum(axis=0).tolist(), strict=True))

    def too_few(self, name: str) -> bool:
        """Whether a class has too few test polygons or pixels to be judged."""
        return self.pixels[name] < FEW_PIXELS or self.polygons.get(name, FEW_POLYGONS) < FEW_POLYGONS

    @property
    def unjudged(self) -> bool:
        """Whether most classes have too few test polygons or pixels, so that no figure of all of them can be judged."""
        return 2 * sum(map(self.too_few, self.f1)) > len(self.f1)

    def uncertain(self, name: str) -> bool:
        """Whether a class has a figure of 100 % from few polygons."""
        figures = (self.users[name], self.producers[name])
        return 1.0 in figures and self.polygons.get(name, CERTAIN_POLYGONS) < CERTAIN_POLYGONS

    @property
    def left_out(self) -> tuple[str, ...]:
        """Classes that the macro-F1 is without: they have no test pixel that can be used."""
        return tuple(name for name, value in self.f1.items() if value is None)


def at_pixels(path: Path, pixels: LabelledPixels) -> NDArray[np.uint8]:
    """Values uint8 [pixel] of a raster's first band at labelled pixels; only blocks that hold some are read."""
    with open_raster(path, error=InputError, what="cannot open the raster") as raster:
        return values_at(raster, pixels.row, pixels.col)


def score(
    method: str, mapped: NDArray[np.uint8], reference: NDArray[np.uint8],
    *, scheme: ClassScheme, polygon: NDArray[np.int32] | None = None,
) -> Score:  # fmt: skip
    """Figures of class codes uint8 [pixel] against reference codes; pixels without a class in the map are left out.

    ``polygon`` int32 [pixel] has the id of each pixel's polygon, of which the score has the number per class.
    """
    index = scheme.code_to_index
    seen = mapped != NODATA
    matrix = cross_tabulate(index[mapped[seen]], index[reference[seen]], classes=len(scheme))
    polygons = {}
    if polygon is not None:
        pairs = np.unique(np.stack([reference[seen], polygon[seen]]), axis=1)[0]
        polygons = {item.name: int((pairs == item.code).sum()) for item in scheme.classes}
    return score_of(method, matrix, names=scheme.names, polygons=polygons)


def better(scores: Sequence[Score]) -> Score:
    """The one with the higher overall accuracy, and of equal ones with the higher macro-F1."""
    return max(scores, key=lambda item: (item.overall_accuracy, item.macro_f1))


def classes_ahead(scores: Sequence[Score]) -> str:
    """What to say where the better forest is ahead of the network, the first; empty where it is not in both figures."""
    network, forest = scores[0], better(scores[1:])
    if forest.overall_accuracy <= network.overall_accuracy or forest.macro_f1 <= network.macro_f1:
        return ""
    figures = (f"{100 * item.overall_accuracy:.1f} % (macro-F1 {item.macro_f1:.3f})" for item in (forest, network))
    return (
        f"{forest.method} is ahead of the network here, {' against '.join(figures)}: landcover crossval tells whether "
        "that holds elsewhere"
    )


def score_of(
    method: str, matrix: NDArray[np.int64], *, names: tuple[str, ...], polygons: Mapping[str, int] | None = None
) -> Score:
    """Figures of an error matrix, int64 [map class, reference class].

    A class without test pixels has no producer's accuracy and no F1, and does not count in the mean.
    """
    hits, mapped, truth = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    users = _shares(hits, mapped, names)
    producers = _shares(hits, truth, names)
    f1 = _shares(2 * hits, np.where(truth > 0, mapped + truth, 0), names)
    known = [value for value in f1.values() if value is not None]
    return Score(
        method=method,
        overall_accuracy=float(hits.sum() / max(matrix.sum(), 1)),
        kappa=agreement(matrix.astype(np.float64)).kappa if matrix.sum() else None,
        macro_f1=float(np.mean(known)) if known else 0.0,
        users=users,
        producers=producers,
        f1=f1,
        iou=_shares(hits, np.where(truth > 0, mapped + truth - hits, 0), names),
        matrix=tuple(tuple(int(value) for value in row) for row in matrix),
        polygons=dict(polygons or {}),
    )


def _shares(top: NDArray[np.int64], bottom: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, float | None]:
    return {name: float(part / whole) if whole else None for name, part, whole in zip(names, top, bottom, strict=True)}


def score_json(item: Score) -> dict[str, object]:
    """A score as ``accuracy.json`` has it; without standard errors, as held-out polygons give none."""
    return {
        "overall_accuracy": item.overall_accuracy,
        "kappa": item.kappa,
        "macro_f1": item.macro_f1,
        "macro_f1_without": list(item.left_out),
        "per_class": {
            name: {
                "users_accuracy": item.users[name],
                "producers_accuracy": item.producers[name],
                "f1": item.f1[name],
                "iou": item.iou[name],
                "support": count,
                **({"polygons": item.polygons[name], "too_few": item.too_few(name)} if item.polygons else {}),
            }
            for name, count in item.pixels.items()
        },
        "confusion": {"classes": list(item.f1), "matrix": item.matrix, "rows": "map", "columns": "reference"},
    }


def confusion_csv(item: Score) -> str:
    """``confusion.csv``: a head of reference classes, then a row per map class."""
    rows = ([name, *row] for name, row in zip(item.f1, item.matrix, strict=True))
    return csv_text([["map \\ reference", *item.f1], *rows])


VALUE_HOLD_OUT = "held-out samples, not a probability sample"
VALUE_SAMPLING = (
    "Figures on held-out samples: not a probability sample of the map. They compare methods and warn of failures; they "
    "are not the map's accuracy. Means and totals of the area need landcover design, then landcover assess."
)


@dataclass(frozen=True)
class ValueScore:
    """Figures of one method on held-out samples, in the quantity's unit."""

    method: str  # Its name
    samples: int  # How many judged
    r2: float  # Share of the variance explained, 1 less the squared error over that of the samples' own mean
    rmse: float  # Root mean squared error
    mae: float  # Mean absolute error
    bias: float  # Mean of predicted less measured
    coverage: float | None = None  # Share of the samples within their interval of 90 %; None without intervals
    width: float | None = None  # Mean width of the interval; None without

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def score_values(
    method: str, measured: NDArray[np.float64], predicted: NDArray[np.float64],
    bounds: NDArray[np.float64] | None = None,
) -> ValueScore:  # fmt: skip
    """Figures of one method.

    Measured and predicted are float64 [n], ``bounds`` lower and upper, float64 [n, 2].

    >>> score_values("x", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])).r2
    0.5
    """
    error = predicted - measured
    spread = float(((measured - measured.mean()) ** 2).sum())
    inside = None if bounds is None else (measured >= bounds[:, 0]) & (measured <= bounds[:, 1])
    return ValueScore(
        method,
        len(measured),
        1.0 - float((error**2).sum()) / spread if spread > 0 else 0.0,
        float(np.sqrt((error**2).mean())),
        float(np.abs(error).mean()),
        float(error.mean()),
        None if inside is None else float(inside.mean()),
        None if bounds is None else float((bounds[:, 1] - bounds[:, 0]).mean()),
    )


def values_ahead(scores: Sequence[ValueScore]) -> str:
    """What to say where a baseline is ahead of the network, the first of ``scores``; empty where none is."""
    network, best = scores[0], max(scores[1:], key=lambda item: item.r2)
    if f"{best.r2:.2f}" == f"{network.r2:.2f}" or best.r2 < network.r2:
        return ""
    return (
        f"{best.method} is ahead of the network here (R2 {best.r2:.2f} against {network.r2:.2f}): the map is no better "
        "than that baseline; landcover crossval tells whether this holds; more samples may help, rasters that say more "
        "(inputs.layers), or the place (inputs.place)"
    )


def by_sample(polygon: NDArray[np.integer], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean over the pixels of each sample, float64 [sample, ...], samples in the order of their ids."""
    _, which, count = np.unique(polygon, return_inverse=True, return_counts=True)
    flat = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(which.ravel(), flat[:, i]) for i in range(flat.shape[1])], axis=1)
    return np.asarray((sums / count[:, None]).reshape(len(count), *values.shape[1:]))
