"""Figures of cross-validation: per fold, their mean and deviation, and pooled over all test pixels of a seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.assess_estimators import cross_tabulate
from pipeline.accuracy.class_maps import CODES
from pipeline.diagnostics.scoring import Score, score_of
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from pipeline.legend import ClassScheme
    from pipeline.splits.settings import Method
    from pipeline.training.crossval import FoldResult

NAMES = ("overall_accuracy", "macro_f1", "kappa")
Figures = dict[str, float | None]


def observed(results: Sequence[FoldResult]) -> list[FoldResult]:
    """The results without the test pixels of a fold that every method left at 0.

    There the scene has no valid observation, and a map has no class that could be right or wrong; ``accuracy.json``
    leaves such pixels out as well. A pixel that only some methods left at 0 is an error of theirs.
    """
    seen: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for item in results:
        known = item.predicted != NODATA
        seen[item.seed, item.fold] = known | seen.get((item.seed, item.fold), known)
    return [_kept(item, seen[item.seed, item.fold]) for item in results]


def _kept(item: FoldResult, seen: NDArray[np.bool_]) -> FoldResult:
    return replace(
        item, reference=item.reference[seen], predicted=item.predicted[seen], polygon=item.polygon[seen],
        not_valid=int((~seen).sum()),
    )  # fmt: skip


def figures(reference: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Figures:
    """``overall_accuracy``, ``macro_f1`` and ``kappa`` (None where chance alone gives full agreement).

    The macro-F1 is over the classes of the reference: a class that is not tested has none.
    """
    if not len(reference):
        return dict.fromkeys(NAMES)
    found = _by_code(reference, predicted)
    return {name: getattr(found, name) for name in NAMES}


def per_class_f1(
    reference: NDArray[np.uint8], predicted: NDArray[np.uint8], *, scheme: ClassScheme
) -> dict[str, float | None]:
    """F1 of every class by name; None for a class that is not tested."""
    f1 = _by_code(reference, predicted).f1
    return {item.name: f1[str(item.code)] for item in scheme.classes}


def _by_code(reference: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Score:
    """Figures by code, as text; a pixel that has no class in the map counts as wrong."""
    return score_of("", cross_tabulate(predicted, reference, classes=CODES), names=tuple(map(str, range(CODES))))


def summary(results: Sequence[FoldResult], method: Method, *, scheme: ClassScheme | None = None) -> dict[str, Any]:
    """Figures of one method, JSON-ready.

    Returns:
        ``folds``: figures of each, with ``seed``, ``fold`` (from 1), ``pixels``, ``polygons`` (tested),
        ``pixels_not_valid`` (left out, :func:`observed`), ``learned`` (polygons) and ``seconds``; ``mean`` and ``sd``
        over them (of n - 1; 0 for one fold); ``pooled``: figures of all test pixels of a seed together, the mean over
        seeds; ``seeds``: those of each seed, and ``seeds_sd``; ``seconds``; with ``scheme`` also ``per_class``, pooled
        F1 by class name. Without results the figures are None.
    """
    own = [item for item in observed(results) if item.method == method]
    folds = [_fold(item) for item in own]
    by_seed = [
        {"seed": seed} | figures(*_joined(item for item in own if item.seed == seed))
        for seed in sorted({item.seed for item in own})
    ]
    data: dict[str, Any] = {
        "folds": folds,
        "mean": _means(folds),
        "sd": _deviations(folds),
        "pooled": _means(by_seed),
        "seeds": by_seed,
        "seeds_sd": _deviations(by_seed),
        "seconds": [item["seconds"] for item in folds],
    }
    if scheme is not None and own:
        data["per_class"] = per_class_f1(*_joined(own), scheme=scheme)
    return data


def _fold(item: FoldResult) -> dict[str, Any]:
    return {
        "seed": item.seed,
        "fold": item.fold + 1,
        **figures(item.reference, item.predicted),
        "pixels": len(item.reference),
        "polygons": len(np.unique(item.polygon)),
        "pixels_not_valid": item.not_valid,
        "learned": item.learned,
        "seconds": round(item.seconds, 1),
    }


def _joined(results: Iterable[FoldResult]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    kept = list(results)
    return np.concatenate([item.reference for item in kept]), np.concatenate([item.predicted for item in kept])


def _known(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _means(rows: Sequence[dict[str, Any]]) -> Figures:
    return {name: float(np.mean(known)) if (known := _known(rows, name)) else None for name in NAMES}


def _deviations(rows: Sequence[dict[str, Any]]) -> Figures:
    """Standard deviations of n - 1."""
    out: Figures = {}
    for name in NAMES:
        known = _known(rows, name)
        out[name] = (float(np.std(known, ddof=1)) if len(known) > 1 else 0.0) if known else None
    return out
