"""Preloaded by a worker on a machine where the first block is mapped and nothing works from then on."""

from __future__ import annotations

from pipeline.inference.steps import SceneSteps


def dask_setup(worker: object) -> None:
    """Called by the worker that preloads this file."""
    real, calls = SceneSteps.map, []

    def once(self: SceneSteps, *args: object) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("this machine is broken")
        real(self, *args)

    SceneSteps.map = once
