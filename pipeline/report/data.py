"""What a report shows, as plain values; whoever ran the job fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from matplotlib.figure import Figure

    from pipeline.diagnostics.confidence import Reliability
    from pipeline.diagnostics.failures import AccuracyBy
    from pipeline.diagnostics.features import Features
    from pipeline.diagnostics.scoring import Score, ValueScore
    from pipeline.legend import ClassScheme
    from pipeline.quantity import Quantity


@dataclass(frozen=True, eq=False)
class MapView:
    """One mapped scene, decimated for the page."""

    name: str  # The scene's id
    scene: NDArray[np.uint8]  # uint8 [row, col, 3], true colour stretched for the eye
    codes: NDArray[np.uint8]  # uint8 [row, col] class codes, 0 nodata; the same pixels as ``scene``
    pixel_m: tuple[float, float]  # (width, height) of one shown pixel in metres
    # In words, what was mapped: (what, value), such as the size, the grid and the date
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ClassArea:
    """Mapped area of one class in one scene (counted pixels, not an area estimate)."""

    scene: str
    name: str
    area_ha: float


@dataclass(frozen=True, eq=False)
class PolygonPart:
    """A part of a label polygon on the split map."""

    polygon: int  # Its id
    # float64 [vertex, (x, y)] in metres east and south of the upper left corner of the first scene
    outline_m: NDArray[np.float64]
    part: str  # "train", "validation", "test", or "buffer" for what nobody uses


@dataclass(frozen=True, eq=False)
class SplitMap:
    """Label polygons by part, with the side of the blocks and the distance kept free in metres; 0 where not drawn."""

    polygons: tuple[PolygonPart, ...]
    block_m: float
    buffer_m: float


@dataclass(frozen=True)
class LearningPoint:
    """Macro-F1 and overall accuracy by number of polygons learned from: network, its spread, forests; None: not run."""

    polygons: int
    macro_f1: float | None
    sd: float | None = None
    baseline_macro_f1: float | None = None
    neighbourhood_macro_f1: float | None = None
    overall_accuracy: float | None = None
    baseline_overall_accuracy: float | None = None
    neighbourhood_overall_accuracy: float | None = None


@dataclass(frozen=True, eq=False)
class ErrorExample:
    """A test polygon that the map gets wrong with conviction."""

    polygon: int  # Its id
    reference: str  # Its class
    mapped: str  # The class most of its pixels were given
    share_wrong: float  # Share of its pixels that are wrong
    confidence: float  # Mean confidence of the wrong pixels, 0..1
    image: NDArray[np.uint8]  # uint8 [row, col, 3], the scene around it
    codes: NDArray[np.uint8]  # uint8 [row, col], the map around it
    inside: NDArray[np.bool_]  # bool [row, col], the polygon's pixels
    tall: float = 1.0  # Height of a pixel on the ground over its width


@dataclass(frozen=True, eq=False)
class ChipExample:
    """A test chip that is classified wrong with conviction."""

    name: str  # Its file
    reference: str  # Its class
    said: str  # The class it was given
    confidence: float  # Of that class, 0..1
    image: NDArray[np.float32]  # float32 [row, col, 3] in 0..1


@dataclass(frozen=True)
class BlockAccuracy:
    """Share of right test pixels of a square: (left, bottom, right, top) in the map's CRS, pixels, share."""

    bounds: tuple[float, float, float, float]
    units: int
    accuracy: float


@dataclass(frozen=True, eq=False)
class Failures:
    """Where the map is wrong on test pixels."""

    by: tuple[AccuracyBy, ...]  # By distance to an edge and by size of the patch, of all scenes
    blocks: tuple[BlockAccuracy, ...]  # Of the scene that has most
    scene: str  # Its name

    @property
    def looked_at(self) -> int:
        """Test pixels whose surroundings were looked at: those of ``by``."""
        return int(self.by[0].count.sum()) if self.by else 0


@dataclass(frozen=True, eq=False)
class ValueFigures:
    """Held-out samples of a continuous target."""

    quantity: Quantity  # Name and unit
    scores: tuple[ValueScore, ...]  # The network first, then the baselines
    samples: dict[str, NDArray[np.float64]]  # float64 [sample] by name: measured, every method, lower, upper
    # Name of each scene and its map float32 [value, lower, upper; row; col], decimated, NaN without data
    maps: tuple[tuple[str, NDArray[np.float32]], ...] = ()


@dataclass(frozen=True, eq=False)
class ObjectsView:
    """Objects of one scene."""

    view: MapView  # The scene, decimated
    mapped: tuple[NDArray[np.float64], ...]  # Outlines float64 [corner, (col, row)] in pixels of the view
    found: tuple[NDArray[np.float64], ...]  # Those of footprints that a mapped object matches
    missed: tuple[NDArray[np.float64], ...]  # Those of footprints that none does
    heads: tuple[str, ...] = ()  # Heads of the table of figures
    rows: tuple[tuple[str, ...], ...] = ()  # Its rows
    intervals: str = ""  # How the intervals came about


@dataclass(frozen=True, eq=False)
class ForecastView:
    """A forecast of a series."""

    draw: Callable[[], Figure]  # Errors by horizon and some cells
    quantity: Quantity  # Of the maps
    maps: tuple[tuple[str, NDArray[np.float32]], ...]  # Name of a step and float32 [median, lower, upper; row; col]
    heads: tuple[str, ...]  # Heads of the table of errors
    rows: tuple[tuple[str, ...], ...]  # Its rows


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything on the page; what a run does not have is empty and left out."""

    title: str  # Name of the job
    scheme: ClassScheme  # The legend
    lead: str = ""  # What it is, in words; "" for a map of the scenes in ``views``
    chips: bool = False  # Whole chips are tested, not pixels of polygons
    views: tuple[MapView, ...] = ()  # One per scene
    areas: tuple[ClassArea, ...] = ()  # Mapped areas
    scores: tuple[Score, ...] = ()  # The network first, then the forests
    values: ValueFigures | None = None  # Of a continuous target
    forecast: ForecastView | None = None  # Of a series
    # Methods with their (overall accuracy, macro-F1) on every pixel, where a full reference is known
    full_reference: tuple[tuple[str, tuple[float, float]], ...] = ()
    mapped_share: float | None = None  # Share of the scenes' pixels that have a class; None where that is not known
    ahead: str = ""  # Which other method is ahead of the network, in words
    sampling: str = ""  # In words: which design the figures assume and what they are not
    history: tuple[dict[str, float], ...] = ()  # Rows of the training log: step, training loss, validation figure
    encoder: str = ""  # Which pretrained encoder learned, its licence and what it gained, or why none did
    learning: tuple[LearningPoint, ...] = ()  # Figures by number of training polygons
    split: SplitMap | None = None  # Polygons by part
    features: Features | None = None  # PCA and t-SNE
    reliability: Reliability | None = None  # On test pixels, of the confidence as it is mapped
    uncalibrated: Reliability | None = None  # The same without the model's temperature, where it has one
    failures: Failures | None = None  # Where the map is wrong
    examples: tuple[ErrorExample, ...] = ()  # The worst errors
    wrong_chips: tuple[ChipExample, ...] = ()  # The worst errors among whole chips
    objects: tuple[ObjectsView, ...] = ()  # One per scene with objects
    ledger: tuple[dict[str, Any], ...] = ()  # One per scene
    warnings: tuple[str, ...] = ()  # Said during the run
    settings: str = ""  # The resolved configuration as text
    environment: dict[str, Any] = field(default_factory=dict)  # Versions
