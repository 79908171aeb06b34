"""Three rounds of labels on the sample scene: places of ``labels next`` against as many at random, by the full truth.

Starts with a few polygons of each class. Each round adds squares of 8 pixels, redrawn around the class that most of
their pixels have in the simulated truth; the same training follows. Repeated from other polygons and with other random
places. Draws docs/images/label_rounds.png.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import yaml
from rasterio.features import shapes
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from pipeline.workflow.demo import LABELS, LEGEND, REFERENCE, SCENE, find_sample_data, read_legend
from pipeline.workflow.init import write_config
from pipeline.workflow.job import Job
from pipeline.workflow.labels_audit import next_labels
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.stages import run_stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROUNDS, COUNT, START, REPEATS = 3, 12, 3, 2
SIDE = 8
FIGURE = Path(__file__).resolve().parents[2] / "docs/images/label_rounds.png"
CHOICES = ("labels next", "at random")
# Enough for a comparison of labels, and half a minute a run; nothing is tested on polygons, as every pixel is known.
KEYS = {
    "training": {
        "context": {"enabled": False},
        "pixels": {"steps": 300},
        "experts": {"trees": 40, "soft_pixels": 20_000},
    },
    "split": {"train": 0.8, "validation": 0.2, "test": 0.0},
}


@dataclass(frozen=True, eq=False)
class Truth:
    """What is there: the class of every pixel."""

    codes: NDArray[np.uint8]
    transform: rasterio.Affine
    names: dict[int, str]

    def label(self, shape: shapely.Polygon) -> tuple[str, shapely.Geometry]:
        """The class that most pixels of a square have, and the part of the square that has it."""
        left, top = ~self.transform @ (shape.bounds[0], shape.bounds[3])
        window = Window(round(left), round(top), SIDE, SIDE)
        own = self.codes[window.toslices()]
        code = int(np.bincount(own.ravel()).argmax())
        parts = shapes((own == code).astype(np.uint8), own == code, transform=window_transform(window, self.transform))
        return self.names[code], shapely.union_all([shapely.geometry.shape(part) for part, _ in parts])

    def squares(self, rng: np.random.Generator, count: int) -> list[shapely.Polygon]:
        """Squares at random places."""
        rows = rng.integers(0, np.array(self.codes.shape) // SIDE, (count, 2)) * SIDE
        corners = [(self.transform @ (c, r), self.transform @ (c + SIDE, r + SIDE)) for r, c in rows.tolist()]
        return [shapely.box(a[0], b[1], b[0], a[1]) for a, b in corners]

    def accuracy(self, job: Job) -> float:
        """Share of all mapped pixels whose class is the true one."""
        with rasterio.open(job.map_of(job.sources[0].id)) as file:
            mapped = file.read(1)
        want = np.zeros_like(mapped)
        for code, name in self.names.items():
            want[self.codes == code] = job.scheme.codes[job.scheme.names.index(name)]
        seen = (mapped > 0) & (want > 0)
        return float((mapped == want)[seen].mean())


def run() -> dict[str, float]:
    """Accuracy against the full truth after each round, by who chose the places: mean of the repeats, and each."""
    data = find_sample_data()
    with rasterio.open(data / REFERENCE) as file:
        truth = Truth(
            file.read(1), file.transform, {item.code: item.name for item in read_legend(data / LEGEND).classes}
        )
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for repeat in range(REPEATS):
            polygons = gpd.read_file(data / LABELS).groupby("class").sample(START, random_state=repeat)
            for chosen in CHOICES:
                place = Path(folder) / f"{chosen.replace(' ', '_')}_{repeat}"
                place.mkdir()
                polygons.to_file(place / "labels.gpkg")
                for number, value in enumerate(rounds(place, chosen, truth, rng=np.random.default_rng(repeat))):
                    figures.setdefault(f"{chosen}: round {number}", []).append(100 * value)
                    print(f"repeat {repeat}, {chosen}: round {number}: {100 * value:.1f} %", flush=True)
    draw(figures)
    return {name: float(np.mean(values)) for name, values in figures.items()}


def rounds(place: Path, chosen: str, truth: Truth, *, rng: np.random.Generator) -> Iterator[float]:
    """Train and map, add labels, again; accuracy after each training."""
    config = place / "config.yaml"
    write_config(
        [str(find_sample_data() / SCENE)], labels=place / "labels.gpkg", field="class", layer=None, output=config,
        overwrite=False,
    )  # fmt: skip
    keys = yaml.safe_load(config.read_text())
    keys |= {"training": KEYS["training"], "split": keys["split"] | KEYS["split"]}
    for number in range(ROUNDS + 1):
        config.write_text(yaml.safe_dump(keys))
        run_stages(config, last="predict", force=False, overwrite=True, progress=no_progress)
        yield truth.accuracy(Job.load(config))
        if number < ROUNDS:
            added = place / f"round_{number}.gpkg"
            next_labels(config, count=COUNT, output=added, overwrite=False, progress=no_progress)
            frame = gpd.read_file(added)
            places = list(frame.geometry) if chosen == "labels next" else truth.squares(rng, len(frame))
            found = [truth.label(shape) for shape in places]
            frame["class"] = [name for name, _ in found]
            frame.geometry = [part for _, part in found]
            frame.to_file(added, layer="label_next")
            keys["labels"]["also"] = [*keys["labels"].get("also", []), str(added)]


def draw(figures: dict[str, list[float]]) -> None:
    """Accuracy against round, a thick line for each way to choose, and a thin one for each repeat."""
    from pipeline.report.style import blank, grid_lines

    figure = blank(14, 8)
    axes = figure.add_subplot()
    for color, chosen in enumerate(CHOICES):
        values = np.array([figures[f"{chosen}: round {number}"] for number in range(ROUNDS + 1)])
        axes.plot(values, color=f"C{color}", linewidth=0.8, alpha=0.6)
        axes.plot(values.mean(axis=1), color=f"C{color}", marker="o", linewidth=2.4, label=chosen)
    axes.set_xlabel(f"round, {COUNT} squares each")
    axes.set_ylabel("overall accuracy, all pixels (%)")
    axes.set_xticks(range(ROUNDS + 1))
    axes.legend()
    grid_lines(axes, "y")
    figure.savefig(FIGURE, dpi=130)
