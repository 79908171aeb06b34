"""Teachers of values mixed by held-out groups: a value, and a distribution around it.

As with classes, teachers learn first and the network learns their mixture for pixels all over the scene. Shares are
those that held-out groups (blocks, stations) speak for, and so is the width of the distribution, so that its interval
holds the share of values that it claims.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import GroupKFold

from pipeline.errors import LabelError
from pipeline.experts.mixture import Admission
from pipeline.experts.regressors import TEACHERS, Kind, Places, ValueTable, fit_teacher, predict_teacher
from pipeline.experts.settings import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

# Levels of the draws that stand for a distribution: the middles of as many equal parts.
DRAWS = 20
DRAW_LEVELS = tuple((i + 0.5) / DRAWS for i in range(DRAWS))
_OUTER = (0.05, 0.95)
INNER_FOLDS = 5
ENCODER: Kind = "encoder"
MIN_FOLDS = 2


@dataclass(frozen=True, eq=False)
class RegressorMixture:
    """Fitted teachers, their shares, and how far their distribution is widened.

    Attributes:
        kinds: Of the teachers.
        models: Fitted.
        shares: float64 [teacher], sum 1.
        widen: Factor of the forest's distribution around its median.
        admission: What held-out groups say of the teacher with a pretrained encoder; None where there is none.
    """

    kinds: tuple[Kind, ...]
    models: tuple[Any, ...]
    shares: NDArray[np.float64]
    widen: float
    admission: Admission | None = None

    def parts(self) -> tuple[RegressorMixture, Any | None]:
        """The mixture of the teachers without a pretrained encoder, and the ridge with one; None without a share.

        The mixture is ``(1 - s)`` times the first and ``s`` times the second, where ``s`` is the share of the second.
        """
        own = np.array([kind == ENCODER for kind in self.kinds])
        share = float(self.shares[own].sum())
        if not share:
            return self, None
        rest = np.where(own, 0.0, self.shares)
        if share == 1:
            rest[self.kinds.index("forest")] = 1.0
        return replace(self, shares=rest / rest.sum()), self.models[self.kinds.index(ENCODER)]

    def values(self, places: Places) -> NDArray[np.float64]:
        """Standardised values float64 [m]."""
        out = np.zeros(len(places))
        for kind, model, share in zip(self.kinds, self.models, self.shares, strict=True):
            if share:
                out += share * predict_teacher(kind, model, places)
        return out

    def draws(self, places: Places, levels: Sequence[float] = DRAW_LEVELS) -> NDArray[np.float64]:
        """Quantiles at ``levels`` of the distribution around :meth:`values`, float64 [m, level]."""
        return self.values_and_draws(places, levels)[:, 1:]

    def values_and_draws(self, places: Places, levels: Sequence[float] = DRAW_LEVELS) -> NDArray[np.float64]:
        """:meth:`values` and behind them :meth:`draws`, float64 [m, 1 + level]; every teacher is asked once."""
        forest = self.models[self.kinds.index("forest")]
        centre = self.values(places)[:, None]
        return np.hstack([centre, centre + self.widen * _spread(forest, places.features, levels)])


def fit_regressor_mixture(
    table: ValueTable, *, trees: int, seed: int, kinds: Sequence[Kind] = TEACHERS,
    deadline: Deadline | None = None, given: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> RegressorMixture:  # fmt: skip
    """Teachers fitted to all samples; shares and width from groups held out.

    No teacher but the first, the forest, is begun after ``deadline``. With ``given`` the teacher with a pretrained
    encoder has that share, without being judged.

    Raises:
        LabelError: too few groups to hold any out.
    """
    deadline = deadline or Deadline()
    folds = min(INNER_FOLDS, len(np.unique(table.group)))
    if folds < MIN_FOLDS:
        raise LabelError("samples lie in one block or group", expected="two or more", fix="use smaller blocks")
    parts = list(GroupKFold(folds).split(table.target, groups=table.group))
    spread = np.zeros((len(table), 2))
    columns: list[NDArray[np.float64]] = []
    models: list[Any] = []
    for kind in kinds:
        if models and deadline.cuts("teachers"):
            break
        column = np.empty(len(table))
        for rest, held in parts:
            places = table.places.at(held)
            model = fit_teacher(kind, table.rows(rest), trees=trees, seed=seed)
            column[held] = predict_teacher(kind, model, places)
            if kind == "forest":
                spread[held] = _spread(model, places.features, _OUTER)
        columns.append(column)
        models.append(fit_teacher(kind, table, trees=trees, seed=seed))
        if progress is not None:
            progress("teachers", len(models), len(kinds))
    found, known = np.stack(columns, axis=1), tuple(kinds)[: len(models)]
    shares, admission = _learned(known, table, found, given=given)
    widen = interval_factor(table.target - found @ shares, spread, weight=table.weight, group=table.group)
    return RegressorMixture(known, tuple(models), shares, widen, admission)


def _learned(
    kinds: Sequence[Kind], table: ValueTable, found: NDArray[np.float64], *, given: float | None = None
) -> tuple[NDArray[np.float64], Admission | None]:
    """Shares by held-out predictions float64 [sample, teacher]; a pretrained encoder has to be admitted.

    It is where it saves more negative log-likelihood per held-out group than its standard error: of normal errors as
    wide as those without it.

    Source: Breiman et al. (1984), Classification and regression trees, section 3.4.3 (the rule of one standard error).
    """
    names, of = np.unique(table.group, return_inverse=True)
    shares = regressor_shares(found, table.target, table.weight, groups=len(names))
    if ENCODER not in kinds:
        return shares, None
    own = np.array([kind == ENCODER for kind in kinds])
    without = np.zeros_like(shares)
    without[~own] = regressor_shares(found[:, ~own], table.target, table.weight, groups=len(names))
    if given is not None:
        return np.where(own, given, (1 - given) * without), None
    plain, mixed = ((table.target - found @ part) ** 2 for part in (without, shares))
    variance = max(float(np.average(plain, weights=table.weight)), np.finfo(np.float64).eps)
    gain = 1 - float(np.average(mixed, weights=table.weight)) / variance
    per_group = [np.bincount(of, part * table.weight) / np.bincount(of, table.weight) for part in (plain, mixed)]
    saved = (per_group[0] - per_group[1]) / (2 * variance)
    error = float(saved.std(ddof=1) / len(names) ** 0.5)
    admitted = bool(saved.mean() > error) and gain > 0
    r2 = gain * variance / float(np.average((table.target - table.target.mean()) ** 2, weights=table.weight))
    share = float(shares[own].sum()) if admitted else 0.0
    return shares if admitted else without, Admission(share, r2, float(saved.mean()), error, len(names))


def _spread(forest: Any, features: NDArray[np.float32], levels: Sequence[float]) -> NDArray[np.float64]:
    """The forest's quantiles less its median, float64 [m, level].

    Source: Meinshausen (2006), Quantile Regression Forests, JMLR 7, 983-999.
    """
    found = np.asarray(forest.predict(features, quantiles=[*levels, 0.5])).reshape(len(features), -1)
    return np.asarray(found[:, :-1] - found[:, -1:])


def regressor_shares(
    found: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64], *, groups: int
) -> NDArray[np.float64]:
    """Shares of teachers by the likelihood of their held-out predictions, float64 [teacher], sum 1.

    Samples of a group err together: so many ``groups`` count as so many observations. Stacking by least squares
    (Breiman 1996) was 0.006 of R2 behind on cover fractions and 0.005 on a day of stations, partitions 1 and 2 of each,
    and 0.004 ahead on many days of few stations; docs/continuous.md has figures on which nothing was chosen.

    Source: Buckland, Burnham & Augustin (1997), Model selection: an integral part of inference, Biometrics 53, 603-618
    (weights of Akaike's criterion for models of equally many parameters: mean square to the power of -n / 2).
    """
    square = np.average((target[:, None] - found) ** 2, axis=0, weights=weight)
    square = np.maximum(square, np.finfo(np.float64).eps)  # of the standardised target; some teacher may be right
    likely = (square.min() / square) ** (groups / 2)
    return np.asarray(likely / likely.sum())


def interval_factor(
    rest: NDArray[np.float64], spread: NDArray[np.float64], *, weight: NDArray[np.float64], group: NDArray[np.int64]
) -> float:
    """Factor of the distances below and above (``spread``, lower negative) so that nine of ten rests lie within.

    Rests count by ``weight``, so that a polygon of many pixels is one sample, and those of a ``group`` (station, field,
    block) as often as they are independent: once where they are all alike.

    Source: Romano, Patterson & Candes (2019), Conformalized quantile regression, NeurIPS, with a factor for the sum;
        Dunn, Wasserman & Ramdas (2023), Distribution-free prediction sets for two-layer hierarchical models, JASA 118
        (groups); Kish (1965), Survey Sampling (design effect).
    """
    least = 1e-6 + 0.05 * float(np.abs(spread).mean())
    ratio = np.where(rest >= 0, rest / np.maximum(spread[:, 1], least), rest / np.minimum(spread[:, 0], -least))
    level = min(0.9 * (1 + 1 / _independent(np.copysign(ratio, rest), weight, group)), 1.0)
    return float(np.quantile(ratio, level, weights=weight, method="inverted_cdf"))


def _independent(values: NDArray[np.float64], weight: NDArray[np.float64], group: NDArray[np.int64]) -> float:
    """How many independent values tell as much of the mean as these do, of which those of a group err together."""
    apart = weight * (values - np.average(values, weights=weight))
    number = np.unique(group, return_inverse=True)[1]
    sums, groups = np.bincount(number, apart), int(number.max()) + 1
    together = float((sums**2).sum()) * groups / max(groups - 1, 1)
    alone = float((apart * apart / weight).sum()) * float(weight.sum())
    return float(np.clip(alone / max(together, 1e-300), 1.0, len(values)))
