"""Worked examples of the literature, as printed."""

from __future__ import annotations

import numpy as np

from pipeline.accuracy.assess_frame import Frame

# Olofsson, Foody, Herold, Stehman, Woodcock & Wulder (2014), Remote Sensing of Environment 148, 42-57: table 8 (sample
# counts, map rows x reference columns) and the mapped pixels of 30 m in section 5.
OLOFSSON_CLASSES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
OLOFSSON_COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
OLOFSSON_PIXELS = np.array([200_000.0, 150_000.0, 3_200_000.0, 6_450_000.0])
PIXEL_HA = 0.09

# Stehman (2014), International Journal of Remote Sensing 35, 4923-4939, table 2: 10 units in each of 4 strata.
STEHMAN_CLASSES = ("A", "B", "C", "D")
STEHMAN_SIZES = np.array([40_000.0, 30_000.0, 20_000.0, 10_000.0])
STEHMAN_MAP = "AAAAAAABBB" + "ABBBBBBBBB" + "BBCCCCCCBB" + "DDDDDDDDDD"
STEHMAN_REFERENCE = "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"


def units(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One (map, reference) pair per counted unit."""
    rows, columns = np.nonzero(counts)
    times = counts[rows, columns]
    return np.repeat(rows, times), np.repeat(columns, times)


def by_map_class(map_index: np.ndarray, sizes: np.ndarray, names: tuple[str, ...], *, counts: bool = True) -> Frame:
    return Frame("stratified", map_index, sizes, names, sizes_are_counts=counts, strata_are_map_classes=True)


def stehman() -> tuple[np.ndarray, np.ndarray, Frame]:
    index = {name: i for i, name in enumerate(STEHMAN_CLASSES)}
    mapped = np.array([index[c] for c in STEHMAN_MAP])
    truth = np.array([index[c] for c in STEHMAN_REFERENCE])
    frame = Frame("stratified", np.repeat(np.arange(4), 10), STEHMAN_SIZES, ("1", "2", "3", "4"))
    return mapped, truth, frame
