"""Three rounds of labels on the sample scene: places of ``labels next`` against as many at random, by the full truth.

Starts with two polygons of each class. Each round adds twelve squares of 8 pixels, labelled with the class that most of
their pixels have in the simulated truth; the same training follows. Draws docs/images/label_rounds.png.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import yaml

from pipeline.workflow.demo import LABELS, LEGEND, REFERENCE, SCENE, find_sample_data, read_legend
from pipeline.workflow.init import write_config
from pipeline.workflow.job import Job
from pipeline.workflow.labels_next import next_labels
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.stages import run_stages

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDS, COUNT, START = 3, 12, 2
SIDE = 8
FIGURE = Path(__file__).resolve().parents[2] / "docs/images/label_rounds.png"
# Enough for a comparison of labels, and a minute a run.
TRAINING = {"context": {"enabled": False}, "pixels": {"steps": 300}, "experts": {"trees": 60}}


def accuracy(job: Job, truth: NDArray[np.uint8], names: dict[int, str]) -> float:
    """Share of all mapped pixels whose class is the true one."""
    with rasterio.open(job.map_of(job.sources[0].id)) as file:
        mapped = file.read(1)
    want = np.zeros_like(mapped)
    for code, name in names.items():
        want[truth == code] = job.scheme.codes[job.scheme.names.index(name)]
    seen = (mapped > 0) & (want > 0)
    return float((mapped == want)[seen].mean())


def class_of(shape: shapely.Polygon, truth: NDArray[np.uint8], names: dict[int, str], inverse: rasterio.Affine) -> str:
    """The class that most pixels of a square have."""
    left, top = inverse @ (shape.bounds[0], shape.bounds[3])
    values = truth[round(top) : round(top) + SIDE, round(left) : round(left) + SIDE]
    return names[int(np.bincount(values[values > 0]).argmax())]


def run() -> dict[str, float]:
    """Accuracy against the full truth after each round, by who chose the places."""
    data = find_sample_data()
    with rasterio.open(data / REFERENCE) as file:
        truth, transform = file.read(1), file.transform
    names = {item.code: item.name for item in read_legend(data / LEGEND).classes}
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for chosen in ("labels next", "at random"):
            place = Path(folder) / chosen.replace(" ", "_")
            place.mkdir()
            polygons = gpd.read_file(data / LABELS)
            polygons = polygons.groupby("class", group_keys=False).head(START * 2).iloc[::2]
            polygons.to_file(place / "labels.gpkg")
            config = place / "config.yaml"
            write_config(
                [str(data / SCENE)],
                labels=place / "labels.gpkg",
                field="class",
                layer=None,
                output=config,
                overwrite=False,
            )
            keys = yaml.safe_load(config.read_text()) | {"training": TRAINING}
            rng = np.random.default_rng(0)
            for number in range(ROUNDS + 1):
                config.write_text(yaml.safe_dump(keys))
                run_stages(config, last="predict", force=False, overwrite=True, progress=no_progress)
                job = Job.load(config)
                figures[f"{chosen}: round {number}"] = 100 * accuracy(job, truth, names)
                if number == ROUNDS:
                    break
                added = place / f"round_{number}.gpkg"
                next_labels(config, count=COUNT, output=added, overwrite=False, progress=no_progress)
                frame = gpd.read_file(added)
                if chosen == "at random":
                    rows = rng.integers(0, np.array(truth.shape) // SIDE, (len(frame), 2)) * SIDE
                    corners = [(transform @ (c, r), transform @ (c + SIDE, r + SIDE)) for r, c in rows.tolist()]
                    frame.geometry = [shapely.box(a[0], b[1], b[0], a[1]) for a, b in corners]
                frame["class"] = [class_of(shape, truth, names, ~transform) for shape in frame.geometry]
                frame.to_file(added, layer="label_next")
                labels = keys["labels"]
                labels["also"] = [*labels.get("also", []), str(added)]
    draw(figures)
    return figures


def draw(figures: dict[str, float]) -> None:
    """Accuracy against round, a line for each way to choose."""
    from pipeline.report.style import blank, grid_lines

    figure = blank(14, 8)
    axes = figure.add_subplot()
    for chosen in ("labels next", "at random"):
        values = [figures[f"{chosen}: round {number}"] for number in range(ROUNDS + 1)]
        axes.plot(range(ROUNDS + 1), values, marker="o", label=chosen)
    axes.set_xlabel(f"round, {COUNT} squares each")
    axes.set_ylabel("overall accuracy, all pixels (%)")
    axes.set_xticks(range(ROUNDS + 1))
    axes.legend()
    grid_lines(axes, "y")
    figure.savefig(FIGURE, dpi=130)
