"""Files that are broken at random, read as the program reads them: ``python -m tests.campaigns.hostile``.

A sound file of each format is damaged: bits turned, bytes dropped, doubled and overwritten, in text also values put in
the place of others that no writer means. What is read of it, or refused in one line, is right; anything else that is
raised is a crash, and what takes longer than a few seconds is slow.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.grid import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from pipeline.scenes.scene import Scene

SLOW_S = 5.0
WORDS = (
    b"NaN", b"-1", b"0", b"1e999", b"-0.0", b"null", b"true", b'""', b"[]", b"{}", b"[[[[]]]]", b'"../../etc/passwd"',
    b"99999999999999999999", b"\xff\xfe", b"\x00", b"[" * 200, b"<a>" * 100, b"&x;", b"'" + b"a" * 400 + b"'",
)  # fmt: skip
_TOKEN = re.compile(rb'"[^"\n]{0,80}"|-?\d+(\.\d+)?|[A-Za-z_]\w*|>[^<>\n]{1,60}<')


def damage_bytes(data: bytes, rng: random.Random, *, head: int | None = None) -> bytes:
    """One to four places of the first ``head`` bytes changed."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(min(head or len(out), len(out))), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + size] = rng.randbytes(size)
        elif kind == 2:
            out[at : at + size] = rng.choice((b"\xff", b"\x00", b"\x7f")) * size
        elif kind == 3:
            del out[at : at + size]
        else:
            out[at:at] = out[at : at + size]
        if len(out) < 2:
            break
    return bytes(out[: rng.randrange(1, len(out) + 1)]) if rng.random() < 0.1 else bytes(out)


def damage_text(data: bytes, rng: random.Random) -> bytes:
    """One or two values changed into hostile ones or each other, a line doubled or dropped; or some bytes."""
    if rng.random() < 0.2:
        return damage_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2))):
        tokens = list(_TOKEN.finditer(data))
        if not tokens:
            break
        one = rng.choice(tokens)
        kind = rng.randrange(5)
        if kind < 3:
            word = rng.choice(WORDS) if kind else rng.choice(tokens)[0]
            word = b">" + word + b"<" if one[0].startswith(b">") else word
            data = data[: one.start()] + word + data[one.end() :]
        else:
            lines = data.splitlines(keepends=True)
            at = rng.randrange(len(lines))
            lines[at : at + 1] = [lines[at]] * 2 if kind == 3 else []
            data = b"".join(lines)
    return data


@dataclass(frozen=True)
class Format:
    """A kind of file: what writes a sound one into a folder and gives its path, what reads it, what damages it."""

    write: Callable[[Path], Path]
    read: Callable[[Path], object]
    damage: Callable[[bytes, random.Random], bytes] = damage_text


@dataclass
class Report:
    """What came of the tries of a format."""

    counts: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        """In words."""
        counted = ", ".join(f"{self.counts[what]} {what}" for what in ("read", "refused", "crash", "slow"))
        return f"{name}: {sum(self.counts.values())} tries, {counted}"


def _pixels(scene: Scene) -> object:
    with scene.open() as reader:
        return reader.read(Window(0, 0, 32, 32))


def _open(path: Path) -> object:
    from pipeline.scenes.opening import open_scene

    return _pixels(open_scene(path))


def _raster(path: Path, **how: object) -> Path:
    from tests.fakes.rasters import write_raster

    values = np.random.default_rng(0).uniform(0, 1, (3, 40, 40)).astype(np.float32)
    write_raster(path, values, names=("blue", "green", "red"), **how)  # type: ignore[arg-type]
    return path


def _labels(path: Path) -> Path:
    import geopandas as gpd
    import shapely

    shapes = [shapely.box(i * 10, 0, i * 10 + 8, 8) for i in range(6)]
    gpd.GeoDataFrame({"class": list("abcabc")}, geometry=shapes, crs=4326).to_file(path)
    return path


def _read_labels(path: Path) -> object:
    from pipeline.labels.source import read_labels

    return read_labels(path, field="class")


def _write_config(folder: Path) -> Path:
    from tests.fakes.small_world import write_world

    return write_world(folder)


def _read_config(path: Path) -> object:
    from pipeline.config import load_config

    return load_config(path)


def _in_product(folder: Path, name: str) -> Path:
    return next(file for file in folder.rglob("*") if re.fullmatch(name, file.name))


def _safe(folder: Path, name: str) -> Path:
    from tests.fakes.safe import Safe, write_safe

    return _in_product(write_safe(folder, Safe(size_m=360, driver="GTiff")), name)


def _landsat(folder: Path, kind: str) -> Path:
    from tests.fakes.landsat import Landsat, write_landsat

    return _in_product(write_landsat(folder, Landsat(pixels=20, mtl=(kind,))), rf".*_MTL\.{kind}")


def _read_safe(path: Path) -> object:
    return _open(next(one for one in path.parents if one.suffix == ".SAFE"))


def _stac(folder: Path) -> Path:
    from tests.fakes.stac_items import earth_search_item

    item = earth_search_item(folder, lambda name: str(folder / name))
    path = folder / "item.json"
    path.write_text(json.dumps(item, indent=1))
    return path


def _model(folder: Path) -> Path:
    from pipeline.model.bundle import save_bundle
    from pipeline.model.spec import NetworkSpec
    from tests.inference.models import bundle_of

    spec = NetworkSpec(3, 3, encoder="none", spectral_channels=4)
    return Path(save_bundle(folder / "model.safetensors", bundle_of(spec)))


def _read_model(path: Path) -> object:
    from pipeline.model.bundle import load_bundle

    return load_bundle(path)


def _sidecar(folder: Path) -> Path:
    _raster(folder / "a.tif")
    path = folder / "a.tif.aux.xml"
    path.write_text(
        "<PAMDataset>\n<Metadata><MDI key='A'>1</MDI></Metadata>\n<PAMRasterBand band='1'>\n"
        "<Description>x</Description>"
        "\n<NoDataValue>-9999</NoDataValue>\n<Scale>0.5</Scale>\n<Offset>0.1</Offset>\n</PAMRasterBand>\n</PAMDataset>"
    )
    return path


def _vrt(folder: Path) -> Path:
    from rasterio.shutil import copy

    copy(str(_raster(folder / "a.tif")), str(folder / "a.vrt"), driver="VRT")
    return folder / "a.vrt"


def _design(folder: Path) -> Path:
    from pipeline.accuracy.sample_draw import draw_sample
    from pipeline.legend import ClassScheme, LandClass
    from tests.fakes.rasters import write_raster

    codes = np.random.default_rng(0).integers(1, 3, (40, 40)).astype(np.uint8)
    classes = ClassScheme((LandClass(1, "a", "#112233"), LandClass(2, "b", "#445566")))
    design = draw_sample(write_raster(folder / "map.tif", codes, nodata=0), scheme=classes)
    path = folder / "design.json"
    path.write_text(json.dumps(design.to_json(), indent=1))
    return path


def _read_design(path: Path) -> object:
    from pipeline.accuracy.sample_design import read_design

    return read_design(path)


def _record(folder: Path) -> Path:
    from pipeline.runs import RunFolder

    run = RunFolder(folder)
    run.note(command="run", stages={"chips": {"key": "a", "outputs": ["chips/index.parquet"], "seconds": 1.5}})
    return run.record_path


def _read_record(path: Path) -> object:
    from pipeline.runs import RunFolder

    run = RunFolder(path.parent)
    return run.record(), run.is_current("chips", key="a")


def _eopf(folder: Path) -> Path:
    from tests.fakes.eopf import Eopf, write_eopf

    return write_eopf(folder, Eopf(size_m=360)) / ".zmetadata"


def _bytes_of_head(data: bytes, rng: random.Random) -> bytes:
    return damage_bytes(data, rng, head=600)


FORMATS = {
    "GeoTIFF header": Format(lambda folder: _raster(folder / "a.tif"), _open, _bytes_of_head),
    "GeoTIFF": Format(lambda folder: _raster(folder / "a.tif"), _open, damage_bytes),
    ".aux.xml": Format(_sidecar, lambda path: _open(path.with_name("a.tif"))),
    "VRT": Format(_vrt, _open),
    "GeoPackage": Format(lambda folder: _labels(folder / "l.gpkg"), _read_labels, damage_bytes),
    "GeoJSON": Format(lambda folder: _labels(folder / "l.geojson"), _read_labels),
    "YAML": Format(_write_config, _read_config),
    "SAFE product": Format(lambda folder: _safe(folder, r"MTD_MSIL2A\.xml"), _read_safe),
    "SAFE tile": Format(lambda folder: _safe(folder, r"MTD_TL\.xml"), _read_safe),
    "MTL text": Format(lambda folder: _landsat(folder, "txt"), _open),
    "MTL JSON": Format(lambda folder: _landsat(folder, "json"), _open),
    "MTL XML": Format(lambda folder: _landsat(folder, "xml"), _open),
    "STAC": Format(_stac, _open),
    "EOPF": Format(_eopf, lambda path: _open(path.parent)),
    "design": Format(_design, _read_design),
    "run.json": Format(_record, _read_record),
    "safetensors": Format(_model, _read_model, lambda data, rng: damage_bytes(data, rng, head=3000)),
}


def attempt(name: str, path: Path, *, report: Report) -> None:
    """Read one file and note what came of it."""

    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    start = time.perf_counter()
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(int(SLOW_S * 4))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FORMATS[name].read(path)
        outcome = "read"
    except PipelineError:
        outcome = "refused"
    except Exception:  # noqa: BLE001 - what campaigns look for
        outcome = "crash"
        report.crashes.append(f"{name}: {''.join(traceback.format_exc().splitlines(keepends=True)[-6:])}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    report.counts["slow" if time.perf_counter() - start > SLOW_S else outcome] += 1


def campaign(name: str, folder: Path, *, tries: int, seed: int = 0, kept: Path | None = None) -> Report:
    """Damage a sound file of a format again and again; files that crash the reader are kept in ``kept``."""
    report, rng = Report(), random.Random(f"{name} {seed}")  # noqa: S311 - a campaign that can be done again
    path = FORMATS[name].write(folder)
    sound = path.read_bytes()
    FORMATS[name].read(path)
    for number in range(tries):
        path.write_bytes(FORMATS[name].damage(sound, rng))
        crashes = len(report.crashes)
        attempt(name, path, report=report)
        if kept is not None and len(report.crashes) > crashes:
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, kept / f"{name.replace(' ', '_').strip('.')}_{number}_{path.name}")
    return report


def main() -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=300, help="Of each format.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="Formats whose names hold this.")
    parser.add_argument("--keep", type=Path, help="A folder for files that crash a reader.")
    asked = parser.parse_args()
    crashes: list[str] = []
    for name in FORMATS:
        if asked.only in name:
            with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
                report = campaign(name, Path(folder), tries=asked.tries, seed=asked.seed, kept=asked.keep)
            sys.stdout.write(f"{report.line(name)}\n")
            sys.stdout.flush()
            crashes += report.crashes
    sys.stdout.write("\n".join(dict.fromkeys(crashes)) + "\n")
    return int(bool(crashes))


if __name__ == "__main__":
    sys.exit(main())
