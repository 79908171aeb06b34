"""Every error and warning that a user can cause.

The tree::

    PipelineError                 exit status 2, printed in one line by the command line
    |-- ConfigError               a configuration file or an option
    |-- InputError                a file that cannot be read at all
    |   |-- SceneError            a scene: CRS, geotransform, bands, nodata, values
    |   |   `-- ProductError      an agency's product folder, archive, metadata or STAC item
    |   |-- LabelError            training polygons, points or label rasters
    |   `-- ReferenceDataError    reference data and sampling designs of an accuracy assessment
    |-- GridError                 window, grid or CRS arithmetic that has no answer
    |-- LegendError               class codes, names, colours, crosswalks
    |-- SplitError                blocks, folds, buffers; leakage between splits
    |-- ModelError                a model file, its weights, or a scene that does not fit it
    `-- OutputError               a folder that cannot be written, a file that exists, a full disk

    PipelineWarning
    |-- ConfigWarning
    |-- SceneWarning
    |   `-- ProductWarning
    |-- LabelWarning
    |-- SplitWarning
    `-- ModelWarning

One sentence form for all of them: what failed, on which file, band or feature; got; expected; what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_SHOWN = 12


def shortened(names: Iterable[object]) -> str:
    """Names in one line, of many the first twelve.

    >>> shortened(range(14))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 ... and 2 more'
    """
    texts = [str(name) for name in names]
    rest = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" ... and {rest} more" if rest > 0 else "")


class PipelineError(Exception):
    """What a user can cause and mend.

    Args:
        what: What failed and on which band, feature, key or window, without a full stop.
        path: The file or folder concerned.
        got: What was found, or the error that says so.
        expected: What would have been right.
        fix: What the user can do, as an imperative.

    >>> print(SceneError("the scene has no CRS", path="a.tif", fix="set it with gdal_edit.py -a_srs"))
    a.tif: the scene has no CRS; set it with gdal_edit.py -a_srs
    >>> print(ConfigError("key 'chip.size'", got="0", expected="a positive integer"))
    key 'chip.size'; got 0; expected a positive integer
    """

    def __init__(
        self, what: str,
        *, path: Path | str | None = None, got: object = None, expected: object = None, fix: str | None = None,
    ) -> None:  # fmt: skip
        self.what = what
        self.path = path
        parts = [f"{path}: {what}" if path is not None else what]
        if got is not None:
            parts.append(f"got {_reason(got)}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if fix is not None:
            parts.append(fix)
        super().__init__("; ".join(" ".join(part.split()) for part in parts))


def _reason(got: object) -> object:
    """What was found; rasterio's errors only say "see previous exception", and GDAL's reason is the one before them."""
    if isinstance(got, Exception) and "previous exception" in str(got):
        return got.__cause__ or got
    return got


class ConfigError(PipelineError):
    """A configuration file or an option of a command."""


class InputError(PipelineError):
    """A file that cannot be read at all."""


class SceneError(InputError):
    """A scene whose CRS, geotransform, bands, nodata or values cannot be used."""


class ProductError(SceneError):
    """An agency's product folder, archive, metadata or STAC item."""


class LabelError(InputError):
    """Training polygons, points or label rasters."""


class ReferenceDataError(InputError):
    """Reference data or a sampling design of an accuracy assessment."""


class GridError(PipelineError):
    """Window, grid or CRS arithmetic that has no answer."""


class LegendError(PipelineError):
    """Class codes, names, colours or crosswalks."""


class SplitError(PipelineError):
    """Blocks, folds and buffers; leakage between splits."""


class ModelError(PipelineError):
    """A model file, its weights, or a scene that does not fit it."""


class OutputError(PipelineError):
    """A folder that cannot be written, a file that exists, a full disk."""


class PipelineWarning(UserWarning):
    """What a user should know and may accept."""


class ConfigWarning(PipelineWarning):
    """Keys of the configuration that moved or went."""


class SceneWarning(PipelineWarning):
    """A scene that can be used but looks odd."""


class ProductWarning(SceneWarning):
    """Metadata of an agency's product that is unknown, incomplete or contradictory."""


class LabelWarning(PipelineWarning):
    """Labels that were repaired, merged, dropped or lie outside."""


class SplitWarning(PipelineWarning):
    """Blocks and folds that are less balanced than wished."""


class ModelWarning(PipelineWarning):
    """A model used close to the edge of what it was trained for."""


def counted(number: int, noun: str) -> str:
    """A number and what it counts, of words with a regular plural.

    >>> counted(1, "class"), counted(1200, "class"), counted(2, "scene")
    ('1 class', '1,200 classes', '2 scenes')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def factor_text(factor: float) -> str:
    """How much larger or smaller values are.

    >>> factor_text(10_000), factor_text(0.1)
    ('10,000 times larger', '10 times smaller')
    """
    size = max(factor, 1 / factor)
    figure = f"{size:,.0f}" if size >= 100 else f"{size:.3g}"  # noqa: PLR2004 - three digits
    return f"{figure} times {'larger' if factor > 1 else 'smaller'}"
