"""The record of a scene's maps: whether they are being written, or were by the same command, so that it continues."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.files import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Folder in the folder of the maps for what is needed while they are made.
WORK = ".work"


@dataclass(frozen=True)
class MapRecord:
    """A small file in the work folder.

    Attributes:
        path: The file.
        key: Hash of all that the maps depend on; a record of another key says nothing.
    """

    path: Path
    key: str

    def is_under_way(self) -> bool:
        """Whether the same command began to write maps and did not end: what is there is its own, to be replaced."""
        return self._read().get("state") == "writing"

    def result(self) -> dict[str, Any] | None:
        """What the same command kept of maps that are finished and have not been touched since; None otherwise."""
        found = self._read()
        if found.get("state") != "done":
            return None
        folder = self.path.parent.parent
        same = all(stamp_of(folder / name) == stamp for name, stamp in found["files"].items())
        result: dict[str, Any] | None = found["result"] if same else None
        return result

    def is_own(self) -> bool:
        """Whether what is there was made by the same command, finished or not, and so may be made again."""
        return self.is_under_way() or self.result() is not None

    def begin(self) -> None:
        """Note that maps are about to be written."""
        write_json(self.path, {"key": self.key, "state": "writing"})

    def end(self, files: Sequence[Path], result: dict[str, Any]) -> None:
        """Note that they have been."""
        folder = self.path.parent.parent
        stamps = {str(file.relative_to(folder)): stamp_of(file) for file in files}
        write_json(self.path, {"key": self.key, "state": "done", "files": stamps, "result": result})

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("key") == self.key else {}


def stamp_of(path: Path) -> list[int]:
    """Size and time of change; empty where there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
