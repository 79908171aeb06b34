"""Class sets: for every pixel the classes that it may have, so that the true one is among them in 90 % of new places.

A class is in the set where its probability is at least a limit, and the mapped class always is. The limit comes from
labelled pixels of held-out blocks: with the score of a pixel one less the probability of its class, each block's scores
weigh 1 / (B + 1) together and the missing rest is at infinity; the limit is the quantile of these scores. Fewer than 9
blocks for 90 % would put every class into every set, and are refused.

Source: Lee, Barber & Willett (2023), Distribution-free inference with hierarchical data, arXiv 2306.06342 (weights of
groups); Sadinle, Lei & Wasserman (2019), Least ambiguous set-valued classifiers, J. Am. Stat. Assoc. 114, 223-234
(the score). It holds on average over places, not for each class or block: coverage by block is what is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.legend import NODATA, ClassScheme, LandClass
from pipeline.maps.geotiff import write_class_map
from pipeline.maps.pixels import PixelRows, row_bands
from pipeline.maps.style import PERCENT_NODATA

if TYPE_CHECKING:
    import torch

    from pipeline.grid import Grid, Window

KEY = "class_sets"
# Levels whose limits a model keeps.
LEVELS = np.round(np.arange(0.5, 0.995, 0.01), 2)
# Codes of a raster of sets: the last stands for the rarest together.
_MOST_CODES = 254
_REST = "other sets"


@dataclass(frozen=True, eq=False)
class SetLimits:
    """What a model keeps: a row for each of LEVELS, float64 [level]; NaN where there are too few blocks."""

    limit: NDArray[np.float64]  # least probability of a class in the set
    coverage: NDArray[np.float64]  # mean over blocks, each with the limit of the others
    worst: NDArray[np.float64]  # coverage that nine of ten blocks reach
    size: NDArray[np.float64]  # mean number of classes in a set
    blocks: int

    def tensors(self) -> dict[str, torch.Tensor]:
        """For ``ModelBundle.extra``."""
        import torch

        table = np.stack([self.limit, self.coverage, self.worst, self.size, np.full(len(self.limit), self.blocks)])
        return {KEY: torch.from_numpy(table.astype(np.float32))}

    @classmethod
    def of(cls, extra: Mapping[str, torch.Tensor]) -> SetLimits:
        """From ``ModelBundle.extra``.

        Raises:
            ModelError: the model was trained without.
        """
        if KEY not in extra:
            raise ModelError("model has no limits of class sets", fix="train it again, or map without map.sets")
        table = extra[KEY].numpy().astype(np.float64)
        return cls(table[0], table[1], table[2], table[3], int(table[4, 0]))

    def row(self, level: float) -> int:
        """The row of the level asked for, or of the next above it.

        Raises:
            ModelError: too few blocks were held out for that level.
        """
        row = int(np.searchsorted(LEVELS, level - 1e-9))
        if row >= len(LEVELS) or np.isnan(self.limit[row]):
            raise too_few_blocks(level, self.blocks)
        return row

    def words(self, level: float) -> str:
        """What was checked, in a sentence."""
        row = self.row(level)
        return (
            f"class sets of {level:.0%}: classes of {self.limit[row]:.1%} probability and more; in {self.blocks} "
            f"blocks held out in turn the label was in its set on {self.coverage[row]:.1%} of the pixels (nine of ten "
            f"blocks: {self.worst[row]:.1%} or more), {self.size[row]:.1f} classes in a set"
        )


def least_blocks(level: float) -> int:
    """Blocks without which every class is in every set.

    >>> least_blocks(0.9), least_blocks(0.95)
    (9, 19)
    """
    return int(np.ceil(level / (1 - level) - 1e-9))


def too_few_blocks(level: float, blocks: int) -> ModelError:
    """Sets of so few blocks would hold every class everywhere."""
    return ModelError(
        f"class sets of {level:.0%}", got=f"{blocks} blocks held out", expected=f"{least_blocks(level)} or more",
        fix="use more labels, smaller blocks, or a lower level",
    )  # fmt: skip


def fit_limits(
    probabilities: NDArray[np.floating], index: NDArray[np.integer], *, block: NDArray[np.integer]
) -> SetLimits:
    """The limits of held-out pixels.

    ``probabilities`` float [pixel, class] are of models that had not seen the pixel's block, ``index`` are its label.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    _, of = np.unique(block, return_inverse=True)
    own, top = p[np.arange(len(index)), index], p.argmax(axis=1) == index
    blocks = int(of.max(initial=-1)) + 1
    weight = 1.0 / np.bincount(of)[of]
    limits = _limits(own, weight, blocks)
    inside = np.empty((blocks, len(LEVELS)))
    for number in range(blocks):
        here = of == number
        theirs = _limits(own[~here], weight[~here], blocks - 1)
        inside[number] = ((own[here, None] >= theirs) | top[here, None]).mean(axis=0)
        inside[number, np.isnan(theirs)] = np.nan
    coverage, worst, size = (np.full(len(LEVELS), np.nan) for _ in range(3))
    for row in np.flatnonzero(np.isfinite(inside).any(axis=0)):
        coverage[row] = np.nanmean(inside[:, row])
        worst[row] = np.nanquantile(inside[:, row], 0.1, method="lower")
    for row in np.flatnonzero(np.isfinite(limits)):
        size[row] = np.maximum((p >= limits[row]).sum(axis=1), 1).mean()
    return SetLimits(limits, coverage, worst, size, blocks)


def _limits(own: NDArray[np.float64], weight: NDArray[np.float64], blocks: int) -> NDArray[np.float64]:
    """Least probability of a class in the set, float64 [level]; NaN where every class would be in it."""
    order = np.argsort(-own)
    at = np.searchsorted(np.cumsum(weight[order]) / (blocks + 1), LEVELS - 1e-9)
    return np.append(own[order], np.nan)[np.minimum(at, len(order))]


class _SetCodes:
    """Codes of sets, window by window, from per cent [class, row, col]; PixelRows."""

    def __init__(self, percent: PixelRows, mapped: PixelRows, *, limit: float, scheme: ClassScheme) -> None:
        self._percent, self._mapped, self._scheme = percent, mapped, scheme
        # Per cent are rounded: what could be the limit is taken in, and nothing that is surely below it.
        self._least = np.ceil(100 * limit - 0.5 - 1e-6)
        self.shape, self.dtype = mapped.shape, np.dtype(np.uint8)
        self._keys: NDArray[np.void] | None = None

    def keys(self, window: Window) -> NDArray[np.void]:
        """Which classes are in the set of each pixel, packed bits [row, col]; no class on nodata."""
        percent, mapped = self._percent.read(window), self._mapped.read(window)
        inside = (percent >= self._least) & (percent != PERCENT_NODATA)
        inside |= mapped == np.array(self._scheme.codes, dtype=np.uint8)[:, None, None]
        inside &= mapped != NODATA
        bits = np.ascontiguousarray(np.moveaxis(np.packbits(inside, axis=0), 0, -1))
        return bits.view(f"V{bits.shape[-1]}")[..., 0]

    def assign(self, keys: NDArray[np.void]) -> None:
        """Sets in the order of their codes, from 1 on; all others have the last code."""
        self._keys = keys

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Codes uint8 [row, col]."""
        keys = self.keys(window)
        found, inverse = np.unique(keys, return_inverse=True)
        order = {key.tobytes(): code for code, key in enumerate(self._keys if self._keys is not None else (), 1)}
        nothing = bytes(found.dtype.itemsize)
        rest = len(order) + 1
        codes = [NODATA if key.tobytes() == nothing else order.get(key.tobytes(), rest) for key in found]
        return np.array(codes, dtype=np.uint8)[inverse].reshape(window.shape)


def write_sets(
    path: Path, probabilities: PixelRows, codes: PixelRows,
    *, limits: SetLimits, level: float, grid: Grid, scheme: ClassScheme, tags: Mapping[str, object] | None = None,
    overwrite: bool = False,
) -> None:  # fmt: skip
    """Write the sets as a class raster that QGIS shows by name: "forest", "forest or scrub", ...

    A set of one class has its colour, one of several the mean of theirs, the paler the more there are. Beyond 254
    different sets the rarest share one code.
    ``probabilities`` are per cent uint8 [class, row, col], 255 nodata; ``codes`` the mapped class.

    Raises:
        ModelError: the model has too few blocks for that level.
        OutputError: the file exists or cannot be written.
    """
    sets = _SetCodes(probabilities, codes, limit=float(limits.limit[limits.row(level)]), scheme=scheme)
    counted: dict[bytes, int] = {}
    for window in row_bands(grid):
        for key, count in zip(*np.unique(sets.keys(window), return_counts=True), strict=True):
            counted[key.tobytes()] = counted.get(key.tobytes(), 0) + int(count)
    bits = {key: np.unpackbits(np.frombuffer(key, dtype=np.uint8)) for key in counted if any(key)}
    members = {key: np.flatnonzero(known[: len(scheme)]).tolist() for key, known in bits.items()}
    chosen = sorted(members, key=lambda key: (-counted[key], key))[: _MOST_CODES - 1]
    chosen.sort(key=lambda key: (len(members[key]), members[key]))
    classes = [_named(code, [scheme.classes[i] for i in members[key]]) for code, key in enumerate(chosen, 1)]
    if len(chosen) < len(members) or not classes:
        classes.append(LandClass(len(classes) + 1, _REST, "#f0f0f0"))
    sets.assign(np.array([np.void(key) for key in chosen]))
    note = {"LANDCOVER_SETS": {"level": level, "words": limits.words(level)}}
    write_class_map(
        path, sets, grid=grid, scheme=ClassScheme(tuple(classes)), tags={**(tags or {}), **note}, overwrite=overwrite
    )


def _named(code: int, classes: list[LandClass]) -> LandClass:
    rgb = np.mean([item.rgb for item in classes], axis=0)
    pale = 1 - 0.7 ** (len(classes) - 1)
    mixed = np.rint(rgb * (1 - pale) + 255 * pale).astype(int)
    return LandClass(code, " or ".join(item.name for item in classes), "#" + "".join(f"{value:02x}" for value in mixed))


def coverage_by_block(
    limits: SetLimits, probabilities: NDArray[np.floating], index: NDArray[np.integer],
    *, block: NDArray[np.integer], level: float = 0.9,
) -> dict[str, Any]:  # fmt: skip
    """How often the label of pixels that no limit was learned from is in its set, by block, JSON-ready."""
    limit = limits.limit[limits.row(level)]
    inside = (probabilities[np.arange(len(index)), index] >= limit) | (probabilities.argmax(axis=1) == index)
    _, of = np.unique(block, return_inverse=True)
    share = np.bincount(of, weights=inside) / np.bincount(of)
    return {
        "level": level,
        "blocks": len(share),
        "coverage": round(float(share.mean()), 4),
        "nine_of_ten_blocks": round(float(np.quantile(share, 0.1, method="lower")), 4),
        "classes": round(float(np.maximum((probabilities >= limit).sum(axis=1), 1).mean()), 3),
        "words": limits.words(level),
    }
