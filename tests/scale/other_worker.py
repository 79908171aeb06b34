"""Preloaded by a worker on a machine that has another version of the package."""

from __future__ import annotations

import pipeline


def dask_setup(worker: object) -> None:
    """Called by the worker that preloads this file."""
    pipeline.__version__ = "0.0.0"
