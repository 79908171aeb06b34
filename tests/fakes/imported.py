"""What forked processes need: imported once by the server that they are forks of."""

from __future__ import annotations

import gc
import warnings
from importlib import import_module
from importlib.util import find_spec

import torch

from tests.campaigns.jobs import import_all

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import_all()
    for name in ("lightning.pytorch", "tests.inference.mapping_process"):
        import_module(name)
    if find_spec("distributed"):
        for name in ("distributed.cli.dask_worker", "pipeline.scale.scenes"):
            import_module(name)

torch.set_num_threads(1)
# Collections in the forks leave it alone: they would copy it.
gc.freeze()
