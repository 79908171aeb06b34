"""One scene and a model -> its maps, with everything that makes them open right, and a record of them.

The record says whether a scene's maps are being written, or were by the same command, so that it continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.documents import read_json
from pipeline.errors import InputError
from pipeline.files import check_target, hash_of, write_json
from pipeline.inference.plan import journal_key
from pipeline.inference.predict import Prediction, predict_scene
from pipeline.inference.rows import RowStore
from pipeline.legend import NODATA
from pipeline.maps.geotiff import write_class_map, write_percent, write_values
from pipeline.maps.pixels import ClassCounts, PixelRows, row_bands
from pipeline.maps.style import CONFIDENCE, ENTROPY, MARGIN
from pipeline.process import give_back
from pipeline.runs import Stamp
from pipeline.scenes.ledger import kept_ledger, source_ledger

if TYPE_CHECKING:
    from pipeline.inference.rows import Key
    from pipeline.inference.settings import MapSettings
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.workflow.outcome import Progress

# Folder in the folder of the maps for what is needed while they are made.
WORK = ".work"
LAYER_KINDS = ("lc", "value", "unfiltered", "conf", "probabilities", "entropy", "margin", "aoa", "sets")


@dataclass(frozen=True)
class MapRecord:
    """A small file in the work folder."""

    path: Path  # The file
    key: str  # Hash of all that the maps depend on; a record of another key says nothing

    def result(self) -> dict[str, Any] | None:
        """What the same command kept of maps that are finished and have not been touched since; None otherwise."""
        found = self._read()
        if found.get("state") != "done":
            return None
        folder = self.path.parent.parent
        same = all(Stamp(**stamp).fits(folder / name) for name, stamp in found["files"].items())
        result: dict[str, Any] | None = found["result"] if same else None
        return result

    def is_own(self) -> bool:
        """Whether what is there was made by the same command, finished or not, and so may be made again."""
        return self._read().get("state") == "writing" or self.result() is not None

    def begin(self) -> None:
        """Note that maps are about to be written."""
        write_json(self.path, {"key": self.key, "state": "writing"})

    def end(self, files: Sequence[Path], result: dict[str, Any]) -> None:
        """Note that they have been."""
        folder = self.path.parent.parent
        stamps = {str(file.relative_to(folder)): Stamp.of(file).model_dump() for file in files}
        write_json(self.path, {"key": self.key, "state": "done", "files": stamps, "result": result})

    def _read(self) -> dict[str, Any]:
        try:
            found = read_json(self.path)
        except InputError:
            return {}
        return found if isinstance(found, dict) and found.get("key") == self.key else {}


@dataclass(frozen=True)
class MapFiles:
    """What was written of one scene."""

    name: str  # The scene
    files: tuple[Path, ...]  # The map first, then its quicklook, layers and polygons
    confidence: Path | None  # The layer of confidence, one of the files; None of a continuous target
    counts: ClassCounts  # Pixels and area of each class
    figures: dict[str, float]  # What mapping took
    plan: dict[str, Any]  # What was decided before it
    sets: str = ""  # How class sets were checked, in words
    unchanged: bool = False  # The same command had written it before

    @property
    def class_map(self) -> Path:
        """The map."""
        return self.files[0]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without files and legend, which the command that wrote them knows."""
        counts = {"pixels": self.counts.pixels, "area_ha": self.counts.area_ha, "nodata": self.counts.nodata_pixels}
        return {"counts": counts, "figures": self.figures, "plan": self.plan, "sets": self.sets}


@dataclass(frozen=True)
class MapOrder:
    """What is to be made of a scene, and where."""

    folder: Path  # Folder of the maps
    settings: MapSettings  # How
    overwrite: bool = False  # Replace maps of other commands
    force: bool = False  # Map again what the same command has mapped
    # The run folder whose ``ledger.json`` is of these scenes; None where there is no run: a ledger found by the scene's
    # name could be another file's
    ledger: Path | None = None
    values: bool = False  # The model gives values, not classes

    def target(self, source: Source, kind: str) -> Path:
        """Where a product goes."""
        return self.folder / f"{source.id}_{kind}.tif"

    def products(self, source: Source) -> tuple[Path, ...]:
        """Every file that a scene's maps will be, sidecars aside."""
        settings, stem = self.settings, self.target(source, "lc")
        wanted = {
            "value": self.values, "unfiltered": settings.filtered, "aoa": settings.applicability,
            "conf": not self.values, "probabilities": settings.probabilities and not self.values,
            "entropy": settings.entropy and not self.values, "margin": settings.margin and not self.values,
            "sets": settings.sets is not None and not self.values,
        }  # fmt: skip
        layers = [self.target(source, kind) for kind in LAYER_KINDS if wanted.get(kind, True)]
        shapes = [stem.with_suffix(f".{kind}") for kind in ("gpkg", *settings.polygon_formats) if settings.polygons]
        shapes += [self.objects(source)] if settings.objects.classes else []
        return (layers[0], self.quicklook(source), *layers[1:], *shapes)

    def files(self, source: Source, counts: ClassCounts, **known: Any) -> MapFiles:
        """The products of a scene that are there, with what is known of them."""
        confidence = None if self.values else self.target(source, "conf")
        return MapFiles(source.id, self.products(source), confidence, counts, **known)

    def objects(self, source: Source) -> Path:
        """Where the objects go."""
        return self.folder / f"{source.id}_objects.gpkg"

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
        kept = found.pop("counts")
        counts = ClassCounts(bundle.scheme, tuple(kept["pixels"]), tuple(kept["area_ha"]), kept["nodata"])
        return order.files(source, counts, **found, unchanged=True)
    order.may_replace(source, record)
    if order.settings.applicability:
        from pipeline.diagnostics.applicability import FeatureDistance

        FeatureDistance.of(bundle.extra)  # a model that cannot tell says so before the scene is mapped
    if order.settings.segments_px:
        from pipeline.maps.segments import need_segments

        need_segments()
    if order.settings.sets is not None:
        from pipeline.diagnostics.class_sets import SetLimits

        SetLimits.of(bundle.extra).row(order.settings.sets)
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
        bundle, source, out=order.work(source), settings=settings, key=key,
        progress=lambda done, total: progress(f"mapping {source.id}", done, total),
    ) as prediction:  # fmt: skip
        give_back()  # tiles and what they were decoded from: products are made in the room that is left
        tags = _tags(prediction, bundle, source, settings=settings, account=account)
        # Asked again: a file that came meanwhile would be taken for this command's own once the record says "writing".
        products = _Products(prediction, bundle, source, order, tags, order.may_replace(source, record))
        record.begin()
        codes = products.filtered()
        counts = products.write_layers(codes)
        if settings.applicability:
            products.write_applicability(progress)
        if settings.polygons:
            products.write_polygons(codes)
        if settings.objects.classes:
            products.write_objects(codes)
        known = {"figures": prediction.figures, "plan": prediction.plan.to_json()}
        files = order.files(source, counts, **known, sets=products.write_sets())
        from pipeline.maps.look import write_quicklook  # matplotlib's memory is not wanted while mapping

        write_quicklook(
            order.quicklook(source), files.class_map, scene=source, look=prediction.look, confidence=files.confidence,
            counts=counts, title=source.id, overwrite=products.overwrite,
        )  # fmt: skip
        record.end(files.files, files.to_json())
        prediction.remove()
    return files


@dataclass(frozen=True)
class _Products:
    """The files that are made of one prediction, with what all of them have in common."""

    prediction: Prediction
    bundle: ModelBundle
    source: Source
    order: MapOrder
    tags: dict[str, Any]
    overwrite: bool

    def _target(self, kind: str) -> Path:
        return self.order.target(self.source, kind)

    @property
    def _same(self) -> dict[str, Any]:
        return {"grid": self.prediction.grid, "tags": self.tags, "overwrite": self.overwrite}

    def filtered(self) -> PixelRows:
        """The codes after the filters asked for, in a store beside theirs; the codes themselves without any."""
        prediction, settings, grid = self.prediction, self.order.settings, self.prediction.grid
        if not settings.filtered:
            return prediction.codes
        from pipeline.maps.pixels import MajorityPixels, SievedPixels, patch_px

        pixels: PixelRows = prediction.codes
        if settings.segments_px:
            from pipeline.maps.segments import SegmentPixels, scene_limits

            source = self.source.select(self.bundle.bands)
            pixels = SegmentPixels(pixels, grid, source, settings.segments_px, scene_limits(source))
        if settings.majority_px > 1:
            pixels = MajorityPixels(pixels, grid, settings.majority_px)
        if settings.sieve_ha:
            pixels = SievedPixels(pixels, grid, patch_px(settings.sieve_ha, grid))
        store = RowStore.create(prediction.codes.path.with_name("filtered.u8"), shape=grid.shape, fill=NODATA)
        for window in row_bands(grid):
            store.write(window, pixels.read(window))
        prediction.layers["filtered"] = store
        return store

    def write_layers(self, codes: PixelRows) -> ClassCounts:
        """Write the map and its layers of percent."""
        prediction, scheme, same = self.prediction, self.bundle.scheme, self._same
        counts = write_class_map(self._target("lc"), codes, scheme=scheme, **same)
        if codes is not prediction.codes:
            write_class_map(self._target("unfiltered"), prediction.codes, scheme=scheme, **same)
        if self.bundle.quantity is not None:
            write_values(self._target("value"), prediction.layers["values"], quantity=self.bundle.quantity, **same)
            return counts
        write_percent(self._target("conf"), prediction.confidence, layer=CONFIDENCE, **same)
        if prediction.probabilities is not None and self.order.settings.probabilities:  # class sets need them too
            write_percent(self._target("probabilities"), prediction.probabilities, layer=scheme, **same)
        for layer in (ENTROPY, MARGIN):
            if layer.key in prediction.layers:
                write_percent(self._target(layer.key), prediction.layers[layer.key], layer=layer, **same)
        return counts

    def write_applicability(self, progress: Progress) -> None:
        """Write how unlike the training data each pixel is."""
        from pipeline.diagnostics.applicability import write_applicability

        write_applicability(
            self._target("aoa"), self.bundle, self.source, codes=self.prediction.codes,
            work=self.order.work(self.source), tags=self.tags, overwrite=self.overwrite, progress=progress,
        )  # fmt: skip

    def write_polygons(self, codes: PixelRows) -> None:
        """Write the map as polygons."""
        from pipeline.maps.vectorise import PolygonRules
        from pipeline.maps.vectors import write_polygons

        prediction, settings = self.prediction, self.order.settings
        rules = PolygonRules(settings.mmu_ha, settings.class_mmu_ha or None, settings.smoothing)
        write_polygons(
            self._target("lc").with_suffix(".gpkg"), codes, grid=prediction.grid, scheme=prediction.scheme, rules=rules,
            confidence=prediction.layers.get("confidence"), also=settings.polygon_formats, overwrite=self.overwrite,
        )  # fmt: skip

    def write_objects(self, codes: PixelRows) -> None:
        """Write the objects of the classes marked."""
        from pipeline.maps.objects import find_objects, object_frame, write_objects

        grid, scheme, settings = self.prediction.grid, self.prediction.scheme, self.order.settings.objects
        confidence, scratch = self.prediction.confidence, self.order.work(self.source)
        found = find_objects(codes, grid=grid, scheme=scheme, settings=settings, confidence=confidence, scratch=scratch)
        write_objects(self.order.objects(self.source), object_frame(found, crs=grid.crs, scheme=scheme), scheme=scheme)

    def write_sets(self) -> str:
        """Write the class sets, if they were asked for; how they were checked, in words."""
        level, probabilities = self.order.settings.sets, self.prediction.probabilities
        if level is None or probabilities is None:
            return ""
        from pipeline.diagnostics.class_sets import SetLimits, write_sets

        limits, codes, scheme = SetLimits.of(self.bundle.extra), self.prediction.codes, self.bundle.scheme
        write_sets(self._target("sets"), probabilities, codes, limits=limits, level=level, scheme=scheme, **self._same)
        return f"{self.source.id}: {limits.words(level)}"


def _tags(
    prediction: Prediction, bundle: ModelBundle, source: Source, *, settings: MapSettings, account: Mapping[str, object]
) -> dict[str, Any]:
    """How a map was made."""
    tags = prediction.tags() | {
        "LANDCOVER_MODEL": bundle.hash,
        "LANDCOVER_LEDGER": account,
        "LANDCOVER_SETTINGS": settings.model_dump(mode="json", exclude={"aoi", "mask"}),
    }
    if source.acquired_utc:
        tags["TIFFTAG_DATETIME"] = source.acquired_utc.strftime("%Y:%m:%d %H:%M:%S")
    return tags


MOSAIC, MOSAIC_RECORD = "mosaic_lc.tif", "mosaic.json"


def write_mosaic_map(maps: Sequence[MapFiles], sources: Sequence[Source], order: MapOrder) -> Path | None:
    """``mosaic_lc.tif`` of several maps where the settings ask for one; None otherwise.

    Raises:
        GridError: maps in several CRSs and none chosen.
        ConfigError: a rule that needs dates or confidence that a map lacks.
    """
    settings, folder = order.settings, order.folder
    if settings.mosaic is None or len(maps) < 2:  # noqa: PLR2004 - one map is no mosaic
        return None
    from rasterio.crs import CRS

    from pipeline.inference.mosaic import MapFile, join_maps, target_grid

    target = folder / MOSAIC
    made_of = [item.class_map for item in maps]
    tag = {"rule": settings.mosaic, "maps": [path.name for path in made_of]}
    about = tag | {"crs": settings.mosaic_crs, "pixel": settings.mosaic_pixel}
    record = MapRecord(folder / WORK / MOSAIC_RECORD, hash_of(about))
    found = record.result()
    if found and all(Stamp(**stamp).fits(path) for stamp, path in zip(found["maps"], made_of, strict=True)):
        return target
    overwrite = order.overwrite or record.is_own()
    files = [
        MapFile(item.class_map, item.confidence, source.acquired_utc)
        for item, source in zip(maps, sources, strict=True)
    ]
    crs = CRS.from_user_input(settings.mosaic_crs) if settings.mosaic_crs else None
    grid = target_grid(files, crs=crs, pixel_size=settings.mosaic_pixel)
    check_target(target, overwrite=overwrite)
    tags = {"LANDCOVER_MOSAIC": tag}
    joined = join_maps(files, grid=grid, rule=settings.mosaic, out=folder / WORK)
    try:
        check_target(target, overwrite=overwrite)  # again: once the record says "writing", what is there is our own
        record.begin()
        write_class_map(target, joined.codes, grid=grid, scheme=maps[0].counts.scheme, tags=tags, overwrite=overwrite)
    finally:
        joined.remove()
    record.end([target], {"maps": [Stamp.of(path).model_dump() for path in made_of]})
    return target
