"""Files broken at random are read or refused in one line, never a traceback; ``make fuzz`` tries many more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.campaigns.hostile import FORMATS, campaign

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    report = campaign(name, tmp_path, tries=25)
    assert not report.crashes
    assert report.counts["read"] + report.counts["refused"] == 25
