"""Picture of what the first layers of a pretrained encoder see.

``python tools/feature_picture.py SCENE OUT.jpg ROW COL``: the scene in natural colours beside the features of the
first stride that vary most, of an encoder of ukis-csmask and of the one that ships.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from pipeline.grid import Window
from pipeline.model.pretrained import COUNTS, SceneBands, search_encoders
from pipeline.model.records import OWN_NAME
from pipeline.scenes.joining import join_scenes
from pipeline.scenes.opening import open_scene
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import InputSettings

SIDE_PX, SHOWN = 256, 7


def draw(scene: str, target: Path, *, row: int, col: int) -> None:
    """Write the picture of SIDE_PX pixels of a Sentinel-2 or Landsat scene."""
    (source,) = join_scenes([("", open_scene(scene))], InputSettings())
    window = Window(row, col, SIDE_PX, SIDE_PX)
    with open_reader(source) as reader:
        raster = reader.read(window)
    values = torch.from_numpy(raster.values)[None]
    values = values * (COUNTS if values.median() > 1 else 1.0)
    names = source.band_names
    rows = []
    for weights in ("ukis_csmask_6b_l1c", OWN_NAME):
        for encoder in search_encoders(SceneBands(names, source.sensor, source.level), weights=weights).encoders:
            first = encoder.calibrated(values).features(values)[0][0]
            most = first.flatten(1).std(1).argsort(descending=True)[:SHOWN]
            rows.append((encoder.name, first[most].numpy()))
    figure, axes = plt.subplots(
        len(rows), SHOWN + 1, figsize=(13, 1.9 * len(rows)), layout="constrained", squeeze=False
    )
    natural = raster.values[[names.index(name) for name in ("red", "green", "blue")]].transpose(1, 2, 0)
    low, high = np.percentile(natural, (1, 99), axis=(0, 1))
    colours = ((natural - low) / (high - low)).clip(0, 1)
    for line, (name, features) in zip(axes, rows, strict=True):
        line[0].imshow(colours)
        line[0].set_title(name, fontsize=8, loc="left")
        for axis, feature in zip(line[1:], features, strict=True):
            low, high = np.percentile(feature, (2, 98))
            axis.imshow(feature, cmap="gray", vmin=low, vmax=high)
        for axis in line:
            axis.axis("off")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=100, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    draw(sys.argv[1], Path(sys.argv[2]), row=int(sys.argv[3]), col=int(sys.argv[4]))
