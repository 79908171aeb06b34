"""Do the labels lie on ground that can be used: those of each scene, and those of each class?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SceneError, SceneWarning
from pipeline.grid import Window
from pipeline.labels.checks import check_usable
from pipeline.scenes.fill import REFUSED_SHARE, has_fill
from pipeline.scenes.reader import open_reader
from pipeline.scenes.survey import MOSTLY_UNUSABLE, fill_fix, fills_of, refuse_empty_bands
from pipeline.splits.split import Part, Split

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source

# Labelled pixels that are read one by one, spread over all of a scene, and over all of a class.
LABELLED_SAMPLE = 64
CLASS_SAMPLE = 16
# Parts whose pixels are used.
LEARNED = (Part.TRAIN, Part.VALIDATION, Part.TEST)
# Side of the windows that are read where a class needs a closer look.
_TILE_PX = 256


@dataclass(frozen=True)
class Usable:
    """Shares of the labelled pixels that have data, of those looked at."""

    scenes: dict[str, float]  # By scene id; scenes without labels are left out
    # By name; classes without labels are left out. 0 is said only where every pixel was looked at
    classes: dict[str, float]
    parts: dict[str, dict[str, float]]  # By name and part (train, validation, test), where a split is known


def check_labelled(sources: Sequence[Source], pixels: Sequence[LabelledPixels], scheme: ClassScheme) -> None:
    """Look at the labelled pixels and judge what was found.

    Raises:
        SceneError: none has data in any scene.
        LabelError: those that have are all of one class.
    """
    refuse_fill(sources, pixels)
    judge_usable(usable_shares(sources, pixels, scheme), sources)


def refuse_fill(sources: Sequence[Source], pixels: Sequence[LabelledPixels]) -> None:
    """Refuse scenes with undeclared fill over much of them, or under their labels.

    Raises:
        SceneError: more than 1 % of the pixels looked at, or a labelled one of those looked at, is such fill.
    """
    for source, part in zip(sources, pixels, strict=True):
        looked = _spread(len(part), LABELLED_SAMPLE) if len(part) else ()
        windows = [Window(int(part.row[i]), int(part.col[i]), 1, 1) for i in looked]
        for scene, fill in fills_of(source):
            under = has_fill(scene.on_grid(source.grid), fill, windows)
            if fill.share > REFUSED_SHARE or under:
                what = f"looks like fill{' under labels' if under else ''} that no tag declares"
                raise SceneError(what, path=scene.path, got=fill.text, expected="observations", fix=fill_fix(fill))


def judge_usable(found: Usable, sources: Sequence[Source]) -> None:
    """Warns of scenes where few of the labelled pixels have data, and of classes where none has.

    Raises:
        SceneError: none has in any scene.
        LabelError: those that have are all of one class.
    """
    if found.scenes and not any(found.classes.values()):
        labelled = next(source for source in sources if source.id in found.scenes)
        refuse_empty_bands(labelled, what="no labelled pixel has data")
        got = "nodata, NaN or masked under the labels looked at"
        fix = "check nodata and masks of the scene, or draw labels where it has data"
        raise SceneError("no labelled pixel has data", path=labelled.path, got=got, fix=fix)
    for source in sources:
        share = found.scenes.get(source.id, 1.0)
        if share < 1 - MOSTLY_UNUSABLE:
            text = f"{source.path}: {1 - share:.0%} of the labelled pixels looked at have no data"
            warnings.warn(text, SceneWarning, stacklevel=2)
    check_usable(found.classes)


def usable_shares(
    sources: Sequence[Source], pixels: Sequence[LabelledPixels], scheme: ClassScheme, *, split: Split | None = None
) -> Usable:
    """Shares from pixels spread over every scene, class and part; where one seems to have none, all of it is read."""
    code = np.concatenate([part.code for part in pixels])
    stops = np.cumsum([len(part) for part in pixels])
    of_scene = [
        stop - len(part) + _spread(len(part), LABELLED_SAMPLE) for part, stop in zip(pixels, stops, strict=True)
    ]
    of_class = {item.name: np.flatnonzero(code == item.code) for item in scheme.classes}
    groups = {(name, ""): own for name, own in of_class.items()}
    if split is not None:
        used = split.part[np.concatenate([part.polygon for part in pixels])]
        groups |= {(name, p.name.lower()): own[used[own] == p] for name, own in of_class.items() for p in LEARNED}
    looked = np.zeros(len(code), dtype=np.bool_)
    looked[np.concatenate([*of_scene, *(own[_spread(len(own), CLASS_SAMPLE)] for own in groups.values())])] = True
    usable = _usable(sources, pixels, looked, one_by_one=True)
    unseen = [own for own in groups.values() if len(own) and not usable[own].any()]
    if unseen:
        again = np.zeros_like(looked)
        again[np.concatenate(unseen)] = True
        usable |= _usable(sources, pixels, again & ~looked, one_by_one=False)
        looked |= again
    shares = {key: float(usable[own[looked[own]]].mean()) for key, own in groups.items() if len(own)}
    return Usable(
        {source.id: float(usable[own].mean()) for source, own in zip(sources, of_scene, strict=True) if len(own)},
        {name: share for (name, part), share in shares.items() if not part},
        {name: {p: share for (n, p), share in shares.items() if p and n == name} for name in of_class},
    )


def _spread(count: int, most: int) -> NDArray[np.intp]:
    """Positions of at most so many of ``count`` things, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.intp))


def _usable(
    sources: Sequence[Source], pixels: Sequence[LabelledPixels], asked: NDArray[np.bool_], *, one_by_one: bool
) -> NDArray[np.bool_]:
    """Which of the pixels asked for have data, bool [pixel], scene after scene; False for all others."""
    parts = zip(sources, pixels, np.split(asked, np.cumsum([len(part) for part in pixels])[:-1]), strict=True)
    return np.concatenate(
        [_usable_in(source, own, mine, one_by_one=one_by_one) if mine.any() else mine for source, own, mine in parts]
    )


def _usable_in(
    source: Source, part: LabelledPixels, asked: NDArray[np.bool_], *, one_by_one: bool
) -> NDArray[np.bool_]:
    usable = np.zeros(len(part), dtype=np.bool_)
    with open_reader(source) as reader:
        if one_by_one:
            for i in np.flatnonzero(asked):
                usable[i] = reader.read(Window(int(part.row[i]), int(part.col[i]), 1, 1)).valid.all()
            return usable
        for tile in source.grid.tiles(_TILE_PX):
            position = part.within(tile)
            position = position[asked[position]]
            if len(position):
                valid = reader.read(tile).valid
                usable[position] = valid[part.row[position] - tile.row, part.col[position] - tile.col]
    return usable
