"""The place itself as two bands: what is interpolated from samples can be learned from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.raster import Raster
from pipeline.scenes.derived import Derived, DerivedReader, refuse_twice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.grid import Window
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source

PLACE = ("easting", "northing")


@dataclass(frozen=True)
class WithPlace(Derived):
    """A source with easting and northing appended, in thousands of its CRS's units; opened like a scene."""

    def ledger(self) -> dict[str, object]:
        """The source's ledger, and that places were added."""
        return self.inputs[0].ledger() | {"place": [name for name in PLACE if name in self.names]}

    def open(self) -> Reader:
        """A reader; the source is read even where only the place is asked for, as its mask holds."""
        source = self.inputs[0]
        own = [name for name in source.band_names if name in self.names]
        base = source.select(own) if own else source
        return DerivedReader(self.grid, self.names, (base.open(),), partial(_placed, names=self.names))


def with_place(source: Source) -> WithPlace:
    """``source`` with the bands easting and northing.

    Raises:
        SceneError: it has bands of these names.
    """
    names = (*source.band_names, *PLACE)
    refuse_twice(names, path=source.path)
    return WithPlace(source.id, (source,), names)


def _placed(inputs: Sequence[Reader], window: Window, *, names: Sequence[str]) -> Raster:
    base = inputs[0].read(window)
    t = base.grid.transform
    rows, cols = np.mgrid[0 : window.height, 0 : window.width] + 0.5
    place = {
        PLACE[0]: (t.a * cols + t.b * rows + t.c) / 1000.0,
        PLACE[1]: (t.d * cols + t.e * rows + t.f) / 1000.0,
    }
    found = dict(zip(base.bands, base.values, strict=True)) | place
    values = np.stack([np.asarray(found[name], dtype=np.float32) for name in names])
    np.multiply(values, base.valid, out=values)
    return Raster(values, base.valid, tuple(names), base.grid)
