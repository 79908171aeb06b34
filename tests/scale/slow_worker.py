"""Preloaded by workers that are to be caught at work: every tile takes its time."""

from __future__ import annotations

import time

from pipeline.inference.steps import SceneSteps

PAUSE_S = 0.05

if SceneSteps._scores.__name__ != "slowly":  # Dask runs a preloaded file twice
    real = SceneSteps._scores

    def slowly(self: SceneSteps, *args: object) -> object:
        time.sleep(PAUSE_S)
        return real(self, *args)

    SceneSteps._scores = slowly
