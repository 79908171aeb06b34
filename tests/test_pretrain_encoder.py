"""The tool that makes the shipped encoder: which bands are seen, and that what it writes is read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.model import records
from pipeline.model.weights import read_weights

TOOL = Path(__file__).resolve().parents[1] / "tools" / "pretrain_encoder.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("pretrain_encoder", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bands_that_are_not_there_are_never_seen(tool):
    there = torch.rand(60, len(tool.BANDS), generator=torch.Generator().manual_seed(0)) < 0.7
    there[:, :4] = True
    kept = tool.kept_bands(there, torch.Generator().manual_seed(0)) > 0
    assert not (kept & ~there).any()
    assert (kept.sum(1) >= 3).all()
    assert len({tuple(row.tolist()) for row in kept}) > 20


def test_crops_keep_what_is_missing_and_fill_what_is_not_valid(tool):
    rng = np.random.default_rng(0)
    values = rng.uniform(0.05, 0.4, (len(tool.BANDS), 300, 300)).astype(np.float32)
    values[0] = np.nan
    values[:, :20, :20] = np.nan
    source = tool.Source("test", values, 10, 1.0)
    for _ in range(5):
        crop = tool._crop(source, rng)
        assert crop.shape == (len(tool.BANDS), tool.SIDE_PX, tool.SIDE_PX)
        assert np.isnan(crop[0]).all()
        assert np.isfinite(crop[1:]).all()
    values[3] = np.nan
    assert tool._crop(source, rng) is None


def test_what_it_writes_is_an_encoder_of_all_bands(tool, tmp_path, monkeypatch):
    values = torch.rand(8, len(tool.BANDS), 32, 32, generator=torch.Generator().manual_seed(0)).half()
    values[:4, 0] = torch.nan
    targets = [torch.randn(8, 6, 32 // stride, 32 // stride).half() for stride in (2, 4, 8)]
    student = tool.train(values, targets, steps=2, rate=1e-3, seed=0)
    tool.save(student, tmp_path, steps=2, crops_made=8)
    found = read_weights(tmp_path / f"{records.OWN_NAME}.safetensors")
    assert (found.bands, found.architecture, found.bands_at_once) == (tool.BANDS, "resnet18", tool.BANDS_AT_ONCE)
    monkeypatch.setattr(records, "OWN_FOLDER", tmp_path)
    record = records.shipped_records()[0]
    assert (record.name, record.bands, record.scaling) == (records.OWN_NAME, found.bands, found.scaling)
