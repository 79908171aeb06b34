"""Make the QGIS plugin a zip that QGIS and its plugin repository take: ``python tools/plugin.py [ZIP]``.

The repository asks for one folder with ``metadata.txt``, a LICENSE, addresses of homepage, source and tracker, and no
binaries. Source: QGIS Python Plugins Repository, "Publish a plugin" and its validator.
"""

from __future__ import annotations

import configparser
import io
import sys
import zipfile
from pathlib import Path

from pipeline import __version__
from pipeline.files import write_bytes

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "docs" / "qgis" / "landcover_qgis"
REQUIRED = (
    "name", "qgisMinimumVersion", "qgisMaximumVersion", "description", "about", "version", "author", "email",
    "homepage", "tracker", "repository", "license",
)  # fmt: skip
TEXT = {".py", ".txt", ".md", ".svg", ""}


def plugin_zip() -> bytes:
    """The plugin as a zip: equal files give equal bytes.

    Raises:
        ValueError: metadata lack a field, or the folder holds something that is no text.
    """
    metadata = (PLUGIN / "metadata.txt").read_text(encoding="utf-8")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(metadata)
    missing = [key for key in REQUIRED if not parser["general"].get(key)]
    if missing:
        raise ValueError(f"metadata.txt lacks {', '.join(missing)}")
    files = {path.name: path.read_bytes() for path in sorted(PLUGIN.iterdir()) if path.is_file()}
    strange = [name for name, data in files.items() if Path(name).suffix not in TEXT or b"\0" in data]
    if strange:
        raise ValueError(f"no text: {', '.join(strange)}")
    old, new = f"version={parser['general']['version']}\n", f"version={__version__}\n"
    files["metadata.txt"] = metadata.replace(f"\n{old}", f"\n{new}").encode()
    files["LICENSE"] = (ROOT / "LICENSE").read_bytes()
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(f"{PLUGIN.name}/{name}", (1980, 1, 1, 0, 0, 0)), data)
    return memory.getvalue()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist" / f"{PLUGIN.name}.zip"
    print(write_bytes(target, plugin_zip()))
