"""One scene and a model -> its maps, with everything that makes them open right."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import check_target, hash_of
from pipeline.heap import give_back
from pipeline.inference.memory import parse_bytes
from pipeline.inference.plan import PredictSettings, journal_key
from pipeline.inference.predict import predict_scene
from pipeline.maps.geotiff import write_class_map, write_percent, write_probabilities
from pipeline.maps.style import CONFIDENCE, ENTROPY, MARGIN
from pipeline.scenes.ledger import kept_ledger, source_ledger
from pipeline.workflow.map_record import WORK, MapRecord
from pipeline.workflow.mapped import MapFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config import MapSection
    from pipeline.inference.journal import Key
    from pipeline.inference.predict import Prediction
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.workflow.outcome import Progress

KINDS = ("lc", "conf", "probabilities", "entropy", "margin", "aoa")


@dataclass(frozen=True)
class MapOrder:
    """What is to be made of a scene, and where.

    Attributes:
        folder: Folder of the maps.
        section: The configuration's section.
        overwrite: Replace maps of other commands.
        seam_figure: Measure disagreement along tile borders.
        force: Map again what the same command has mapped.
        ledger: The run folder whose ``ledger.json`` is of these scenes; None where there is no run: a ledger found by
            the scene's name could be another file's.
    """

    folder: Path
    section: MapSection
    overwrite: bool = False
    seam_figure: bool = False
    force: bool = False
    ledger: Path | None = None

    def target(self, source: Source, kind: str) -> Path:
        """Where a product goes."""
        return self.folder / f"{source.id}_{kind}.tif"

    def products(self, source: Source) -> tuple[Path, ...]:
        """Every file that a scene's maps will be, sidecars aside."""
        section, stem = self.section, self.target(source, "lc")
        wanted = {
            "probabilities": section.probabilities, "entropy": section.entropy, "margin": section.margin,
            "aoa": section.applicability,
        }  # fmt: skip
        layers = [self.target(source, kind) for kind in KINDS if wanted.get(kind, True)]
        shapes = [stem.with_suffix(f".{kind}") for kind in ("gpkg", *section.polygon_formats) if section.polygons]
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
        key = key or journal_key(bundle, source.select(bundle.bands), predict_settings(self.section))
        text = json.dumps(self.section.model_dump(mode="json"), sort_keys=True)
        return MapRecord(self.folder / WORK / f"{source.id}.json", hash_of([key.hash, text, self.seam_figure]))


def predict_settings(section: MapSection) -> PredictSettings:
    """The engine's settings from the configuration's."""
    return PredictSettings(
        tile_px=section.tile_px,
        batch=section.batch,
        engine=section.engine,
        dtype=section.dtype,
        device=section.device,
        memory_bytes=parse_bytes(section.memory),
        tta=section.tta,
        blend=section.blend,
        probabilities=section.probabilities,
        entropy=section.entropy,
        margin=section.margin,
        aoi=Path(section.aoi) if section.aoi else None,
        mask=Path(section.mask) if section.mask else None,
    )


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
    if order.section.applicability:
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
    record, section = order.record(bundle, source, key), order.section
    order.may_replace(source, record)
    settings = predict_settings(section)
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
        tags = _tags(prediction, bundle, source, section=section, account=account)
        # Asked again: a file that came meanwhile would be taken for this command's own once the record says "writing".
        overwrite = order.may_replace(source, record)
        record.begin()
        targets = {kind: order.target(source, kind) for kind in KINDS}
        files = _write_layers(prediction, bundle, source, targets=targets, tags=tags, overwrite=overwrite)
        if section.applicability:
            from pipeline.diagnostics.applicability import write_applicability

            aoa = write_applicability(
                targets["aoa"], bundle, source, codes=prediction.codes, work=order.work(source),
                tags=tags, overwrite=overwrite, progress=progress,
            )  # fmt: skip
            files = replace(files, aoa=aoa)
        if section.polygons:
            shapes = order.target(source, "lc").with_suffix(".gpkg")
            files = replace(files, polygons=_write_polygons(prediction, shapes, section, overwrite))
        if order.seam_figure:
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
    targets: dict[str, Path],
    tags: dict[str, Any],
    overwrite: bool,
) -> MapFiles:
    grid = prediction.grid
    counts = write_class_map(
        targets["lc"], prediction.codes, grid=grid, scheme=bundle.scheme, tags=tags, overwrite=overwrite
    )
    write_percent(targets["conf"], prediction.confidence, grid=grid, layer=CONFIDENCE, tags=tags, overwrite=overwrite)
    files = MapFiles(
        source.id, grid, targets["lc"], counts, prediction.figures, prediction.plan.to_json(), targets["conf"]
    )
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


def _tags(
    prediction: Prediction, bundle: ModelBundle, source: Source, *, section: MapSection, account: Mapping[str, object]
) -> dict[str, Any]:
    """How a map was made."""
    tags = prediction.tags() | {
        "LANDCOVER_MODEL": bundle.hash,
        "LANDCOVER_LEDGER": account,
        "LANDCOVER_SETTINGS": {
            key: value for key, value in section.model_dump(mode="json").items() if key not in {"aoi", "mask"}
        },
    }
    if source.acquired_utc:
        tags["TIFFTAG_DATETIME"] = source.acquired_utc.strftime("%Y:%m:%d %H:%M:%S")
    return tags


def _write_polygons(prediction: Prediction, path: Path, section: MapSection, overwrite: bool) -> Path:  # noqa: FBT001
    from pipeline.maps.vectorise import PolygonRules
    from pipeline.maps.vectors import write_polygons

    write_polygons(
        path,
        prediction.codes,
        grid=prediction.grid,
        scheme=prediction.scheme,
        rules=PolygonRules(section.mmu_ha, section.class_mmu_ha or None, section.smoothing),
        confidence=prediction.confidence,
        also=section.polygon_formats,
        overwrite=overwrite,
    )
    return path
