"""The estimators against R's survey package (Lumley), an independent implementation, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import numpy as np
import pytest

from pipeline.accuracy.assess_estimators import estimate_accuracy
from pipeline.accuracy.assess_frame import Clusters, Frame
from tests.accuracy.published import STEHMAN_CLASSES, stehman

NAMES = ("a", "b", "c")


@cache
def _survey_is_here() -> bool:
    r = shutil.which("Rscript")
    return (
        r is not None and subprocess.run([r, "-e", "library(survey)"], capture_output=True, check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not _survey_is_here(), reason="Rscript with the package survey is not installed")

_R = """
suppressMessages(library(survey))
d <- read.csv("{path}")
design <- {design}
K <- {classes}
line <- function(y, x) {{
  d2 <- update(design, y = y, x = x); r <- svyratio(~y, ~x, d2)
  cat(format(c(coef(r), SE(r)), digits = 15), "\\n")
}}
line(as.numeric(d$m == d$r), rep(1, nrow(d)))
for (k in 0:(K-1)) line(as.numeric(d$m == k & d$r == k), as.numeric(d$m == k))
for (k in 0:(K-1)) line(as.numeric(d$m == k & d$r == k), as.numeric(d$r == k))
for (k in 0:(K-1)) line(2 * (d$m == k & d$r == k), (d$m == k) + (d$r == k))
for (k in 0:(K-1)) line(as.numeric(d$r == k), rep(1, nrow(d)))
"""


def _by_r(folder, columns, design, classes):
    path = folder / "units.csv"
    header = ",".join(columns)
    np.savetxt(path, np.column_stack(list(columns.values())), delimiter=",", header=header, comments="", fmt="%d")
    script = folder / "script.R"
    script.write_text(_R.format(path=path, design=design, classes=classes))
    out = subprocess.run(["Rscript", str(script)], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return np.array([[float(word) for word in line.split()] for line in out.stdout.splitlines()])


def _ours(figures):
    kinds = ("users_accuracy", "producers_accuracy", "f1", "area_share")
    all_figures = [figures.overall_accuracy]
    all_figures += [getattr(figures.per_class[name], kind) for kind in kinds for name in figures.per_class]
    return np.array([[figure.estimate, figure.se] for figure in all_figures])


def test_strata_that_are_not_the_map_classes(tmp_path):
    mapped, truth, frame = stehman()
    columns = {"m": mapped, "r": truth, "h": frame.stratum, "N": frame.sizes[frame.stratum]}
    expected = _by_r(tmp_path, columns, "svydesign(ids = ~1, strata = ~h, fpc = ~N, data = d)", 4)
    found = _ours(estimate_accuracy(mapped, truth, names=STEHMAN_CLASSES, frame=frame))
    assert found == pytest.approx(expected, rel=1e-9)


def _clustered(seed, drawn, size, taken):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(size - 2, size + 3, drawn) if taken else np.full(drawn, size)
    counts = np.minimum(taken or size, sizes)
    cluster = np.repeat(np.arange(drawn), counts)
    lean = rng.random((drawn, 3)) + 0.3
    truth = np.array([rng.choice(3, p=lean[c] / lean[c].sum()) for c in cluster])
    mapped = np.where(rng.random(len(truth)) < 0.75, truth, rng.integers(0, 3, len(truth)))
    return mapped, truth, cluster, sizes.astype(float)


def test_two_stage_clusters(tmp_path):
    mapped, truth, cluster, sizes = _clustered(1, 40, 12, 5)
    frame = Frame(
        "two-stage cluster",
        np.zeros_like(mapped),
        np.array([400 * 12.0]),
        ("all",),
        clusters=Clusters(cluster, sizes, 400),
    )
    columns = {
        "m": mapped, "r": truth, "psu": cluster, "ssu": np.arange(len(mapped)),
        "M": np.full(len(mapped), 400), "N": sizes[cluster],
    }  # fmt: skip
    expected = _by_r(tmp_path, columns, "svydesign(ids = ~psu + ssu, fpc = ~M + N, data = d)", 3)
    assert _ours(estimate_accuracy(mapped, truth, names=NAMES, frame=frame)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("taken", [0, 4])
def test_clusters_in_strata(tmp_path, taken):
    mapped, truth, cluster, sizes = _clustered(4, 45, 10, taken)
    stratum = np.repeat([0, 1, 2], [20, 15, 10])
    frame = Frame(
        "two-stage cluster" if taken else "one-stage cluster",
        stratum[cluster],
        np.array([3000.0, 2000.0, 900.0]),
        NAMES,
        clusters=Clusters(cluster, sizes, (300, 200, 90), stratum),
    )
    columns = {
        "m": mapped, "r": truth, "psu": cluster, "ssu": np.arange(len(mapped)), "h": stratum[cluster],
        "M": np.array([300, 200, 90])[stratum[cluster]], "N": sizes[cluster],
    }  # fmt: skip
    ids, whole = ("~psu + ssu", "~M + N") if taken else ("~psu", "~M")
    expected = _by_r(tmp_path, columns, f"svydesign(ids = {ids}, strata = ~h, fpc = {whole}, data = d)", 3)
    assert _ours(estimate_accuracy(mapped, truth, names=NAMES, frame=frame)) == pytest.approx(expected, rel=1e-9)


def test_one_stage_clusters(tmp_path):
    mapped, truth, cluster, sizes = _clustered(2, 50, 9, 0)
    frame = Frame(
        "one-stage cluster",
        np.zeros_like(mapped),
        np.array([900 * 9.0]),
        ("all",),
        clusters=Clusters(cluster, sizes, 900),
    )
    columns = {"m": mapped, "r": truth, "psu": cluster, "M": np.full(len(mapped), 900)}
    expected = _by_r(tmp_path, columns, "svydesign(ids = ~psu, fpc = ~M, data = d)", 3)
    assert _ours(estimate_accuracy(mapped, truth, names=NAMES, frame=frame)) == pytest.approx(expected, rel=1e-9)


def test_simple_random(tmp_path):
    mapped, truth, _, _ = _clustered(3, 60, 5, 0)
    frame = Frame("simple random", np.zeros_like(mapped), np.array([50_000.0]), ("all",))
    columns = {"m": mapped, "r": truth, "N": np.full(len(mapped), 50_000)}
    expected = _by_r(tmp_path, columns, "svydesign(ids = ~1, fpc = ~N, data = d)", 3)
    assert _ours(estimate_accuracy(mapped, truth, names=NAMES, frame=frame)) == pytest.approx(expected, rel=1e-9)
