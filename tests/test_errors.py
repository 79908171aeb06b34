from __future__ import annotations

from pathlib import Path

from pipeline.errors import OutputError


def failed(message: str, reason: Exception | None) -> OutputError:
    """The error that reports another one, which came of a third."""
    error = OSError(message)
    error.__cause__ = reason
    return OutputError("cannot write the map", path=Path("a.tif"), got=error)


def test_an_error_that_points_to_another_gives_that_ones_reason():
    found = failed("Write failed. See previous exception for details.", OSError("No space left on device"))
    assert str(found) == "a.tif: cannot write the map; got No space left on device"


def test_an_error_that_says_why_is_quoted():
    assert "got disk full" in str(failed("disk full", OSError("errno 28")))
    assert "got Write failed" in str(failed("Write failed. See previous exception for details.", None))
