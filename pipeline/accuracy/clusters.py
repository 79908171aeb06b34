"""Cluster samples: squares of the map drawn at random, within strata of squares if wanted, then all or some pixels.

Source: Stehman (1997), Remote Sens. Environ. 60, 258-269 (variances); Cochran (1977), Sampling Techniques, chapters 9
to 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.allocation import MIN_PER_STRATUM
from pipeline.accuracy.design import SampleDesign, Stratum
from pipeline.accuracy.drawn import assemble_design, by_stratum, share_out
from pipeline.accuracy.pixels import map_scheme, open_class_map
from pipeline.accuracy.squares import Squares, pixels_inside, survey_squares
from pipeline.accuracy.strata import OUTSIDE
from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.accuracy.allocation import Allocation
    from pipeline.accuracy.strata import StrataLayer
    from pipeline.legend import ClassScheme


def draw_clusters(
    map_path: Path | str,
    *,
    clusters: int,
    cluster_px: int,
    per_cluster: int | None = None,
    strata: StrataLayer | None = None,
    allocation: Allocation | Mapping[str, int] = "proportional",
    expected_users: Sequence[float] | Mapping[str, float] | float | None = None,
    seed: int = 0,
    scheme: ClassScheme | None = None,
) -> SampleDesign:
    """A cluster sample: squares of ``cluster_px`` pixels drawn at random, then all or some of their pixels.

    Args:
        map_path: The class map.
        clusters: Primary units to draw.
        cluster_px: Side of a primary unit in pixels, counted from the map's corner.
        per_cluster: Pixels to draw in each (two stages); None for all of them (one stage).
        strata: A square belongs to the stratum of most of its pixels; squares without one are not drawn from. None
            for one stratum, the map.
        allocation: How squares are given to strata: a rule, or squares by stratum name.
        expected_users: Expected user's accuracies by stratum, for ``neyman``.
        seed: Seed of the draw.
        scheme: The legend where the map does not carry one.

    Raises:
        ReferenceDataError: more clusters than the map (or a stratum) has, or fewer than 2 in it.
    """
    scheme = map_scheme(map_path, scheme)
    with open_class_map(map_path) as dataset:
        squares = survey_squares(dataset, cluster_px, layer=strata)
        values = np.unique(squares.stratum[squares.stratum != OUTSIDE])
        members = [np.flatnonzero(squares.stratum == value) for value in values]
        filled = [len(part) for part in members]
        if not MIN_PER_STRATUM <= clusters <= sum(filled):
            expected = f"{MIN_PER_STRATUM} to {sum(filled)}, the squares with valid pixels"
            raise ReferenceDataError("number of clusters", got=clusters, expected=expected)
        names = ["all"] if strata is None else [strata.name(int(value)) for value in values]
        shares, how = [clusters], ""
        if strata is not None:
            wished = by_stratum(expected_users, names)
            shares, how = share_out(clusters, allocation, names=names, units=filled, expected=wished)
        rng = np.random.default_rng(seed)
        chosen = [np.sort(rng.choice(part, share, replace=False)) for part, share in zip(members, shares, strict=True)]
        of_square = np.repeat(np.arange(len(shares)), shares)
        parts = [pixels_inside(dataset, int(i), cluster_px, per_cluster, rng) for i in np.concatenate(chosen)]
        taken = np.array([len(part[0]) for part in parts])
        psu = np.repeat(np.arange(len(parts)), taken)
        row, col = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        inside = squares.pixels[np.concatenate(chosen)]
        drawn = np.bincount(of_square, weights=taken, minlength=len(names)).astype(int)
        table = _table(squares, values, members, names=names, drawn=drawn)
        chance = (np.array(shares) / np.array(filled))[of_square] * taken / inside
        words = f"{clusters} of {sum(filled)} squares, {per_cluster or 'all'} pixels in each"
        if strata is not None:
            words += f"; squares by stratum: {', '.join(map(str, shares))} ({how})"
        return assemble_design(
            dataset, map_path, scheme, kind="one-stage cluster" if per_cluster is None else "two-stage cluster",
            seed=seed, strata=table, source="none" if strata is None else f"squares by {strata.source}",
            allocation=words, units=(row, col, of_square[psu].astype(np.intp)), inclusion=chance[psu], rng=rng,
            psu=psu, psu_units=inside, psus_in_frame=sum(filled), cluster_px=cluster_px,
            psu_stratum=None if strata is None else of_square,
            psus_by_stratum=() if strata is None else tuple(filled),
        )  # fmt: skip


def _table(
    squares: Squares, values: NDArray[np.int32], members: list[NDArray[np.intp]], *, names: list[str],
    drawn: NDArray[np.int64],
) -> tuple[Stratum, ...]:  # fmt: skip
    """The strata of squares, with all their pixels."""
    return tuple(
        Stratum(int(value), name, int(squares.pixels[here].sum()), float(squares.area_ha[here].sum()), int(n))
        for value, name, here, n in zip(values, names, members, drawn, strict=True)
    )
