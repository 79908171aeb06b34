"""Quantity: what a continuous target measures - name, unit, valid range, transform - and its value classes.

A network learns the transformed, standardised quantity; maps and figures are in its own unit. The value classes (equal
counts of samples) are the strata of splits and the legend under which a map of values is also shown as classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import LabelError, PipelineError
from pipeline.legend import VIRIDIS, ClassScheme, LandClass

Transform = Literal["none", "log", "sqrt"]
# Probability levels of the quantiles; the outer two bound an interval that holds nine values of ten.
LEVELS = (0.05, 0.5, 0.95)
# What a network of values gives of a quantity, and the raw channels it ends in (``pipeline.model.quantiles``).
OUTPUTS = ("value", "lower", "median", "upper")
CHANNELS = len(OUTPUTS)
# Fewer samples than this say nothing about a relation, and leave no folds.
LEAST_SAMPLES = 10
# Squares of larger values are none of float32.
MOST_VALUE = 1e15
VALUE_CLASSES = 5
# What stands for "not measured" in tables and rasters, and is no value of a sample unless a range is stated.
NO_DATA = (-9999.0, -99999.0, -999.0, -32768.0, -3.4028234663852886e38)
# What the name of an attribute may end in.
UNITS = {"_t_ha": "t/ha", "_mg_ha": "Mg/ha", "_kg_m2": "kg/m2", "_ugm3": "ug/m3", "_percent": "%", "_pct": "%",
         "_cm": "cm", "_mm": "mm", "_m": "m", "_degc": "degC", "_k": "K"}  # fmt: skip
# Of the top of a range: how much of it samples must reach for it to be taken for theirs.
_NEAR = 0.5
# Decimals of the limits of value classes; smaller ones are written as 1.2e-08. 17 figures tell any two float64 apart.
_DECIMALS, _EVERY_FIGURE = 6, 17
# Of the largest transformed value: a smaller deviation is rounding.
_LEAST_SPREAD = 1e-12
# Of the largest value: what a logarithm adds to values that may be 0.
_OFFSET = 1e-3
# Skewness above which a distribution of positive values is proposed to be transformed: 1 is highly skewed, by a root,
# 2 (an exponential distribution) by a logarithm. Source: Bulmer (1979), Principles of Statistics, on 0.5 and 1.
_SKEWED, _VERY_SKEWED = 1.0, 2.0


@dataclass(frozen=True)
class Quantity:
    """A continuous target."""

    name: str  # The attribute that holds it
    unit: str = ""  # As written, such as "t/ha"; "" for a pure number
    low: float | None = None  # Smallest value it can have; None for none
    high: float | None = None  # Largest value it can have; None for none
    transform: Transform = "none"  # What is learned: the value, its logarithm, or its square root
    offset: float = 0.0  # Added before the logarithm
    mean: float = 0.0  # Of the transformed training values
    deviation: float = 1.0  # Of the transformed training values
    edges: tuple[float, ...] = ()  # Inner limits of the value classes, rising

    @property
    def title(self) -> str:
        """Name with unit: "pm10 (ug/m3)"."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def forward(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Standardised transformed values of values in the quantity's unit."""
        return (self._transformed(np.asarray(values, dtype=np.float64)) - self.mean) / self.deviation

    def inverse(self, standard: NDArray[Any]) -> NDArray[np.float64]:
        """Values in the quantity's unit, within its range, of standardised transformed ones."""
        found = np.asarray(standard, dtype=np.float64) * self.deviation + self.mean
        if self.transform == "log":
            found = np.exp(np.minimum(found, 700.0)) - self.offset
        elif self.transform == "sqrt":
            found = np.square(np.maximum(found, 0.0))
        return np.clip(found, self.low, self.high) if (self.low, self.high) != (None, None) else found

    def _transformed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.transform == "log":
            return np.log(np.maximum(values + self.offset, np.finfo(np.float64).tiny))
        return np.sqrt(np.maximum(values, 0.0)) if self.transform == "sqrt" else values

    def fitted(self, values: NDArray[Any]) -> Quantity:
        """With offset, mean, deviation and value classes of training values."""
        values = np.asarray(values, dtype=np.float64)
        offset = _OFFSET * float(values.max()) if self.transform == "log" and values.min() <= 0 else 0.0
        plain = Quantity(self.name, self.unit, self.low, self.high, self.transform, offset)
        found = plain._transformed(values)
        inner = np.unique(np.quantile(values, np.arange(1, VALUE_CLASSES) / VALUE_CLASSES))
        edges = tuple(float(edge) for edge in inner if values.min() < edge <= values.max())
        deviation = max(float(found.std()), _LEAST_SPREAD * (float(np.abs(found).max()) or 1.0))
        return replace(plain, mean=float(found.mean()), deviation=deviation, edges=edges)

    def codes(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Code of the value class of each value, uint8 from 1."""
        return np.asarray(np.digitize(values, self.edges) + 1, dtype=np.uint8)

    @property
    def scheme(self) -> ClassScheme:
        """The value classes, coloured from dark (small) to bright (large).

        >>> Quantity("lai", edges=(1.0, 2.5)).scheme.names
        ('below 1', '1 to 2.5', '2.5 and above')
        """
        limits = [_text(edge, self.edges) for edge in self.edges]
        names = [f"below {limits[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(limits)),
                 f"{limits[-1]} and above"] if limits else ["all values"]  # fmt: skip
        colors = [VIRIDIS[round(i * (len(VIRIDIS) - 1) / max(len(names) - 1, 1))] for i in range(len(names))]
        unit = f" {self.unit}" if self.unit else ""
        return ClassScheme(tuple(LandClass(i, f"{name}{unit}", color) for i, (name, color) in
                                 enumerate(zip(names, colors, strict=True), 1)))  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"edges": list(self.edges)}

    @classmethod
    def from_json(cls, items: Mapping[str, Any]) -> Quantity:
        """The inverse of :meth:`to_json`."""
        return cls(**{**items, "edges": tuple(items["edges"])})


def _text(edge: float, edges: tuple[float, ...]) -> str:
    """An edge with as many digits as tell it from its neighbours, and from 0.

    >>> _text(2e-08, (1e-08, 2e-08)), _text(0.25, (0.25, 0.5)), _text(0.003, (0.003, 400.0))
    ('2e-08', '0.25', '0.003')
    """
    near = min((abs(edge - other) for other in edges if other != edge), default=abs(edge) or 1.0)
    size = int(np.floor(np.log10(near)))
    digits = max(0, 1 - size)
    text = f"{edge:.{min(digits, _DECIMALS)}f}"
    if edge and (digits > _DECIMALS or float(text) == 0):
        figures = int(np.floor(np.log10(abs(edge)))) - size + 2
        return f"{edge:.{min(max(figures, 2), _EVERY_FIGURE)}g}"
    return text.rstrip("0").rstrip(".") if digits else text


def unit_of(field: str) -> str:
    """The unit that an attribute's name says, as in height_m or cover_percent; "" for none.

    >>> unit_of("biomass_t_ha"), unit_of("height_m"), unit_of("lai")
    ('t/ha', 'm', '')
    """
    name = field.casefold()
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def propose(values: NDArray[Any], *, name: str) -> Quantity:
    """Range and transform from the distribution: what ``landcover init`` writes.

    Values within 0..1 get that range, those within 0..100 only where the name says that they are per cent, others
    without negative values get 0 as their least; what is not bounded above and is skewed gets a root, what is very
    skewed a logarithm.
    """
    low = 0.0 if values.min() >= 0 else None
    per_cent = any(word in name.casefold() for word in ("percent", "pct", "cover", "share", "fraction"))
    tops = (1.0, 100.0) if per_cent else (1.0,)
    high = next((top for top in tops if low == 0.0 and _NEAR * top <= values.max() <= top), None)
    spread = float(values.std())
    skew = float((((values - values.mean()) / spread) ** 3).mean()) if spread else 0.0
    transform: Transform = "none"
    if low is not None and high is None:
        transform = "log" if skew > _VERY_SKEWED and values.min() > 0 else "sqrt" if skew > _SKEWED else "none"
    return Quantity(name, "", low, high, transform).fitted(values)


def check_values(values: NDArray[np.float64], quantity: Quantity, *, what: str, path: Path) -> None:
    """Refuse targets that nothing can be learned from, and values that the quantity cannot have.

    Raises:
        LabelError: too few, constant, or none that can be measured.
    """
    if len(values) < LEAST_SAMPLES:
        expected = f"at least {LEAST_SAMPLES}"
        raise LabelError(f"too few samples with a value of {what}", path=path, got=len(values), expected=expected)
    if values.min() == values.max():
        what, got = f"{what} is the same in every sample", f"{values[0]:g} in {len(values)} samples"
        expected = "values that differ"
        raise LabelError(what, path=path, got=got, expected=expected, fix="name the attribute with the quantity")
    check_measured(values, quantity, what=what, path=path)
    if quantity.transform != "none" and values.min() < 0:
        what = f"{what} has negative values, which have no {quantity.transform}"
        raise LabelError(what, path=path, got=f"{values.min():g}", fix="set labels.value.transform to none")


def check_measured(
    values: NDArray[np.float64], quantity: Quantity, *, what: str, path: Path,
    error: type[PipelineError] = LabelError, stated: str | None = "labels.value.range",
) -> None:  # fmt: skip
    """Refuse values that are no measurements of a quantity: infinite, standing for no data, or outside its range.

    ``values`` are without blanks; ``stated`` is the key that states the range, None for that of a map.

    Raises:
        PipelineError: of the type ``error``, with how many there are and the first of them.
    """
    finite = np.isfinite(values)
    fill = np.isin(values, NO_DATA)
    if quantity.low is not None or not fill.any() or values[~fill].min(initial=0.0) <= values[fill].max():
        fill[:] = False
    low = -np.inf if quantity.low is None else quantity.low
    high = np.inf if quantity.high is None else quantity.high
    blank, limits = "leave blank what was not measured", f"{low:g}..{high:g}"
    outside = f"lie outside the range {f'that {stated} states' if stated else 'of the map'}"
    measured = f", or state {stated} if they were measured" if stated else ""
    another = "leave them blank, or state another range" if stated else "or leave them blank"
    for bad, words, expected, fix in (
        (~finite, "are infinite", "measurements", blank),
        (fill, "stand for no data", "measurements", blank + measured),
        (np.abs(values) > MOST_VALUE, "that none can be", f"at most {MOST_VALUE:g}", blank),
        ((values < low) | (values > high), outside, limits, f"correct them, {another}"),
    ):
        if bad.any():
            raise error(f"{int(bad.sum())} values of {what} {words}", path=path, got=f"{values[bad][0]:g}",
                        expected=expected, fix=fix)  # fmt: skip
