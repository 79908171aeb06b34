"""One scene and a model -> its maps, with everything that makes them open right, and a record of them.

The record says whether a scene's maps are being written, or were by the same command, so that it continues.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.files import check_target, hash_of, write_json
from pipeline.heap import give_back
from pipeline.inference.plan import journal_key
from pipeline.inference.predict import predict_scene
from pipeline.inference.rows import RowStore
from pipeline.legend import NODATA
from pipeline.maps.geotiff import write_class_map, write_percent, write_probabilities, write_values
from pipeline.maps.pixels import ClassCounts, row_bands
from pipeline.maps.style import CONFIDENCE, ENTROPY, MARGIN
from pipeline.scenes.ledger import kept_ledger, source_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.grid import Grid
    from pipeline.inference.journal import Key
    from pipeline.inference.predict import Prediction
    from pipeline.inference.settings import MapSettings
    from pipeline.legend import ClassScheme
    from pipeline.maps.pixels import PixelRows
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.workflow.outcome import Progress

# Folder in the folder of the maps for what is needed while they are made.
WORK = ".work"
PATHS = (
    "class_map", "value", "quicklook", "unfiltered", "confidence", "probabilities", "entropy", "margin", "aoa",
    "polygons",
)  # fmt: skip
KINDS = ("lc", "value", "unfiltered", "conf", "probabilities", "entropy", "margin", "aoa")


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


@dataclass(frozen=True)
class MapFiles:
    """What was written of one scene; ``unchanged`` where the same command had written it before."""

    name: str
    grid: Grid
    class_map: Path
    counts: ClassCounts
    figures: dict[str, float]
    plan: dict[str, Any]
    value: Path | None = None
    unfiltered: Path | None = None
    confidence: Path | None = None
    probabilities: Path | None = None
    entropy: Path | None = None
    margin: Path | None = None
    aoa: Path | None = None
    polygons: Path | None = None
    quicklook: Path | None = None
    seam: dict[str, float] | None = None
    unchanged: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the map first."""
        found = {name: getattr(self, name) for name in PATHS}
        return (self.class_map, *(path for name, path in found.items() if path is not None and name != "class_map"))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without grid and legend, which the scene and the model know; files by their names."""
        paths = {name: path.name for name in PATHS if (path := getattr(self, name)) is not None}
        counts = {"pixels": self.counts.pixels, "area_ha": self.counts.area_ha, "nodata": self.counts.nodata_pixels}
        return {"paths": paths, "counts": counts, "figures": self.figures, "plan": self.plan, "seam": self.seam}

    @classmethod
    def from_json(cls, items: dict[str, Any], *, name: str, grid: Grid, scheme: ClassScheme, folder: Path) -> MapFiles:
        """The inverse of :meth:`to_json`."""
        found = items["counts"]
        counts = ClassCounts(scheme, tuple(found["pixels"]), tuple(found["area_ha"]), found["nodata"])
        paths: dict[str, Any] = {key: folder / value for key, value in items["paths"].items()}
        return cls(
            name=name,
            grid=grid,
            counts=counts,
            figures=items["figures"],
            plan=items["plan"],
            seam=items["seam"],
            unchanged=True,
            **paths,
        )


@dataclass(frozen=True)
class MapOrder:
    """What is to be made of a scene, and where.

    Attributes:
        folder: Folder of the maps.
        settings: How.
        overwrite: Replace maps of other commands.
        force: Map again what the same command has mapped.
        ledger: The run folder whose ``ledger.json`` is of these scenes; None where there is no run: a ledger found by
            the scene's name could be another file's.
        values: The model gives values, not classes.
    """

    folder: Path
    settings: MapSettings
    overwrite: bool = False
    force: bool = False
    ledger: Path | None = None
    values: bool = False

    def target(self, source: Source, kind: str) -> Path:
        """Where a product goes."""
        return self.folder / f"{source.id}_{kind}.tif"

    def products(self, source: Source) -> tuple[Path, ...]:
        """Every file that a scene's maps will be, sidecars aside."""
        if self.values:
            kinds = ("lc", "value", *(("aoa",) if self.settings.applicability else ()))
            return (*(self.target(source, kind) for kind in kinds), self.quicklook(source))
        settings, stem = self.settings, self.target(source, "lc")
        wanted = {
            "unfiltered": settings.filtered, "probabilities": settings.probabilities, "entropy": settings.entropy,
            "margin": settings.margin, "aoa": settings.applicability, "value": False,
        }  # fmt: skip
        layers = [self.target(source, kind) for kind in KINDS if wanted.get(kind, True)]
        shapes = [stem.with_suffix(f".{kind}") for kind in ("gpkg", *settings.polygon_formats) if settings.polygons]
        return (*layers, *shapes, self.quicklook(source))

    def quicklook(self, source: Source) -> Path:
        """Where the picture goes."""
        return self.folder / f"{source.id}_quicklook.png"

    def may_replace(self, source: Source, record: MapRecord) -> bool:
        """Whether the writers may replace files: those of this command, or any where the user said so.

        Raises:
            OutputError: a product of somebody else's is there.
        """
        if self.overwrite or record.is_own():
            return True
        for path in self.products(source):
            check_target(path, overwrite=False)
        return False

    def work(self, source: Source) -> Path:
        """Where a scene's stores and journal are while it is mapped."""
        return self.folder / WORK / source.id

    def record(self, bundle: ModelBundle, source: Source, key: Key | None = None) -> MapRecord:
        """The record of a scene's maps; ``key`` is the journal's where another machine began it."""
        key = key or journal_key(bundle, source.select(bundle.bands), self.settings)
        kept = self.settings.model_dump(mode="json")
        return MapRecord(self.folder / WORK / f"{source.id}.json", hash_of([key.hash, kept]))


def finished_map(bundle: ModelBundle, source: Source, order: MapOrder) -> MapFiles | None:
    """What the same command has made of a scene already; None where it is to be mapped.

    Raises:
        OutputError: a file that is not this command's has a product's name, and is not to be overwritten.
        ModelError: the model cannot make what is asked for.
    """
    record = order.record(bundle, source)
    found = record.result() if not order.force else None
    if found is not None:
        return MapFiles.from_json(found, name=source.id, grid=source.grid, scheme=bundle.scheme, folder=order.folder)
    order.may_replace(source, record)
    if order.settings.applicability:
        from pipeline.diagnostics.applicability import FeatureDistance

        FeatureDistance.of(bundle.extra)  # a model that cannot tell says so before the scene is mapped
    return None


def map_scene(
    bundle: ModelBundle, source: Source, order: MapOrder, *, progress: Progress, key: Key | None = None
) -> MapFiles:
    """Map one scene and write its products; a scene that the same command has mapped is left as it is.

    Raises:
        OutputError: a product exists and is not to be overwritten, the folder cannot be written, or the disk is full.
    """
    if key is None:
        found = finished_map(bundle, source, order)
        if found is not None:
            return found
    record, settings = order.record(bundle, source, key), order.settings
    order.may_replace(source, record)
    account = kept_ledger(source, folder=order.ledger) if order.ledger else source_ledger(source)
    give_back()  # what looking at the scene, or an earlier stage, took
    with predict_scene(
        bundle,
        source,
        out=order.work(source),
        settings=settings,
        progress=lambda done, total: progress(f"mapping {source.id}", done, total),
        key=key,
    ) as prediction:
        give_back()  # tiles and what they were decoded from: products are made in the room that is left
        tags = _tags(prediction, bundle, source, settings=settings, account=account)
        # Asked again: a file that came meanwhile would be taken for this command's own once the record says "writing".
        overwrite = order.may_replace(source, record)
        record.begin()
        targets = {kind: order.target(source, kind) for kind in KINDS}
        codes = _filtered(prediction, settings)
        files = _write_layers(prediction, bundle, source, codes=codes, targets=targets, tags=tags, overwrite=overwrite)
        if settings.applicability:
            from pipeline.diagnostics.applicability import write_applicability

            aoa = write_applicability(
                targets["aoa"], bundle, source, codes=prediction.codes, work=order.work(source),
                tags=tags, overwrite=overwrite, progress=progress,
            )  # fmt: skip
            files = replace(files, aoa=aoa)
        if settings.polygons:
            shapes = order.target(source, "lc").with_suffix(".gpkg")
            _write_polygons(prediction, codes, shapes, settings=settings, overwrite=overwrite)
            files = replace(files, polygons=shapes)
        if settings.seam_figure:
            from pipeline.inference.seams import seam_figure as measure

            again = order.work(source).with_name(f"{source.id}-shifted")
            seams = measure(bundle, source, prediction, out=again, settings=settings)
            files = replace(files, seam=asdict(seams))
        from pipeline.maps.quicklook import write_quicklook  # matplotlib's memory is not wanted while mapping

        quicklook = order.quicklook(source)
        write_quicklook(
            quicklook, files.class_map, scene=source, confidence=files.confidence, counts=files.counts,
            title=source.id, overwrite=overwrite,
        )  # fmt: skip
        files = replace(files, quicklook=quicklook)
        record.end(order.products(source), files.to_json())
        prediction.remove()
    return files


def _write_layers(
    prediction: Prediction,
    bundle: ModelBundle,
    source: Source,
    *,
    codes: PixelRows,
    targets: dict[str, Path],
    tags: dict[str, Any],
    overwrite: bool,
) -> MapFiles:
    grid = prediction.grid
    if bundle.quantity is not None:
        write_values(
            targets["value"], prediction.layers["values"], grid=grid, quantity=bundle.quantity, tags=tags,
            overwrite=overwrite,
        )  # fmt: skip
    same: dict[str, Any] = {"grid": grid, "scheme": bundle.scheme, "tags": tags, "overwrite": overwrite}
    counts = write_class_map(targets["lc"], codes, **same)
    if bundle.quantity is not None:
        return MapFiles(
            source.id, grid, targets["lc"], counts, prediction.figures, prediction.plan.to_json(),
            value=targets["value"],
        )  # fmt: skip
    write_percent(targets["conf"], prediction.confidence, grid=grid, layer=CONFIDENCE, tags=tags, overwrite=overwrite)
    files = MapFiles(
        source.id,
        grid,
        targets["lc"],
        counts,
        prediction.figures,
        prediction.plan.to_json(),
        confidence=targets["conf"],
    )
    if codes is not prediction.codes:
        write_class_map(targets["unfiltered"], prediction.codes, **same)
        files = replace(files, unfiltered=targets["unfiltered"])
    if prediction.probabilities is not None:
        write_probabilities(
            targets["probabilities"],
            prediction.probabilities,
            grid=grid,
            scheme=bundle.scheme,
            tags=tags,
            overwrite=overwrite,
        )
        files = replace(files, probabilities=targets["probabilities"])
    for layer in (ENTROPY, MARGIN):
        if layer.key in prediction.layers:
            path = targets[layer.key]
            write_percent(path, prediction.layers[layer.key], grid=grid, layer=layer, tags=tags, overwrite=overwrite)
            files = replace(files, entropy=path) if layer is ENTROPY else replace(files, margin=path)
    return files


def _filtered(prediction: Prediction, settings: MapSettings) -> PixelRows:
    """The codes after the filters that were asked for, in a store beside theirs; the codes themselves without any."""
    if not settings.filtered:
        return prediction.codes
    from pipeline.maps.filters import MajorityPixels, SievedPixels, patch_px

    grid = prediction.grid
    pixels: PixelRows = prediction.codes
    if settings.majority_px > 1:
        pixels = MajorityPixels(pixels, grid, settings.majority_px)
    if settings.sieve_ha:
        pixels = SievedPixels(pixels, grid, patch_px(settings.sieve_ha, grid))
    store = RowStore.create(prediction.codes.path.with_name("filtered.u8"), shape=grid.shape, fill=NODATA)
    for window in row_bands(grid):
        store.write(window, pixels.read(window))
    prediction.layers["filtered"] = store
    return store


def _tags(
    prediction: Prediction, bundle: ModelBundle, source: Source, *, settings: MapSettings, account: Mapping[str, object]
) -> dict[str, Any]:
    """How a map was made."""
    tags = prediction.tags() | {
        "LANDCOVER_MODEL": bundle.hash,
        "LANDCOVER_LEDGER": account,
        "LANDCOVER_SETTINGS": {
            key: value for key, value in settings.model_dump(mode="json").items() if key not in {"aoi", "mask"}
        },
    }
    if source.acquired_utc:
        tags["TIFFTAG_DATETIME"] = source.acquired_utc.strftime("%Y:%m:%d %H:%M:%S")
    return tags


def _write_polygons(
    prediction: Prediction, codes: PixelRows, path: Path, *, settings: MapSettings, overwrite: bool
) -> None:
    from pipeline.maps.vectorise import PolygonRules
    from pipeline.maps.vectors import write_polygons

    write_polygons(
        path,
        codes,
        grid=prediction.grid,
        scheme=prediction.scheme,
        rules=PolygonRules(settings.mmu_ha, settings.class_mmu_ha or None, settings.smoothing),
        confidence=prediction.confidence,
        also=settings.polygon_formats,
        overwrite=overwrite,
    )
