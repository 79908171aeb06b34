"""``landcover predict``: scenes and a model -> maps, with everything that makes them open right."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, OutputError
from pipeline.inference.memory import parse_bytes
from pipeline.inference.plan import PredictSettings
from pipeline.inference.predict import predict_scene
from pipeline.maps.geotiff import write_class_map, write_confidence, write_probabilities, write_uncertainty
from pipeline.maps.quicklook import write_quicklook
from pipeline.model.bundle import ModelBundle, load_bundle
from pipeline.runs import prepare_folder
from pipeline.workflow.applicability import FeatureDistance, write_applicability
from pipeline.workflow.ledgers import kept_ledger
from pipeline.workflow.outcome import Outcome, Progress, Table
from pipeline.workflow.recipe import sources_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config import MapSection
    from pipeline.grid import Grid
    from pipeline.inference.predict import Prediction
    from pipeline.maps.counts import ClassCounts
    from pipeline.scenes.scene import Source


KINDS = ("lc", "conf", "probabilities", "entropy", "margin", "aoa")


@dataclass(frozen=True)
class MapRequest:
    """What the command line asks for beyond the configuration; None and False leave the configuration's word."""

    aoi: Path | None = None
    mask: Path | None = None
    memory: str | None = None
    engine: str | None = None
    dtype: str | None = None
    tta: bool = False
    probabilities: bool = False
    applicability: bool = False
    polygons: bool = False
    mosaic: str | None = None
    seam_figure: bool = False

    def apply(self, section: MapSection) -> MapSection:
        """The configuration's section with what was asked for."""
        asked = {
            "aoi": str(self.aoi.resolve()) if self.aoi else None,
            "mask": str(self.mask.resolve()) if self.mask else None,
            "memory": self.memory,
            "engine": self.engine,
            "dtype": self.dtype,
            "tta": self.tta or None,
            "probabilities": self.probabilities or None,
            "applicability": self.applicability or None,
            "polygons": self.polygons or None,
            "mosaic": self.mosaic,
        }
        return type(section).model_validate(
            section.model_dump() | {key: value for key, value in asked.items() if value is not None}
        )


@dataclass(frozen=True)
class MapFiles:
    """What was written of one scene."""

    name: str
    grid: Grid
    class_map: Path
    counts: ClassCounts
    figures: dict[str, float]
    plan: dict[str, Any]
    confidence: Path | None = None
    probabilities: Path | None = None
    entropy: Path | None = None
    margin: Path | None = None
    aoa: Path | None = None
    polygons: Path | None = None
    quicklook: Path | None = None
    seam: dict[str, float] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the map first."""
        layers = (self.confidence, self.probabilities, self.entropy, self.margin, self.aoa, self.polygons)
        return (self.class_map, *(path for path in (self.quicklook, *layers) if path is not None))


def predict_maps(
    config: Path | None,
    *,
    model: Path | None,
    scenes: Sequence[str],
    output: Path | None,
    request: MapRequest,
    force: bool,
    overwrite: bool,
    progress: Progress,
) -> Outcome:
    """Map the scenes of a configuration, or any scenes with a model.

    Raises:
        ConfigError: neither or both are given.
    """
    alone = model is not None or bool(scenes) or output is not None
    if (config is None) != alone or (alone and (model is None or not scenes or output is None)):
        raise ConfigError("what to map", expected="either a configuration, or --model, --scene and -o")
    if config is not None:
        from pipeline.workflow.stages import run_stages

        return run_stages(config, last="predict", force=force, overwrite=overwrite, progress=progress, request=request)
    from pipeline.config import MapSection

    if model is None or output is None:
        raise ConfigError("what to map", expected="--model and -o")
    bundle = load_bundle(model)
    section = request.apply(MapSection.model_validate({}))
    sources = sources_for(bundle, scenes)
    folder = prepare_folder(output)
    maps = [
        map_scene(bundle, source, folder=folder, section=section, overwrite=overwrite, progress=progress,
                  seam_figure=request.seam_figure)
        for source in sources
    ]  # fmt: skip
    mosaic = write_mosaic(maps, sources, folder=folder, section=section, overwrite=overwrite)
    return mapping_outcome(maps, mosaic=mosaic)


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


def map_scene(
    bundle: ModelBundle,
    source: Source,
    *,
    folder: Path,
    section: MapSection,
    overwrite: bool,
    progress: Progress,
    seam_figure: bool = False,
) -> MapFiles:
    """Map one scene and write its products into ``folder``.

    Raises:
        OutputError: a product exists and is not to be overwritten, the folder cannot be written, or the disk is full.
    """
    targets = {kind: folder / f"{source.id}_{kind}.tif" for kind in KINDS}
    if targets["lc"].exists() and not overwrite:
        raise OutputError("the map exists", path=targets["lc"], fix="add --overwrite, or choose another folder")
    if section.applicability:
        FeatureDistance.of(bundle.extra)  # a model that cannot tell says so before the scene is mapped
    settings = predict_settings(section)
    account = kept_ledger(source, folder=folder)
    with predict_scene(
        bundle,
        source,
        out=folder / ".work" / source.id,
        settings=settings,
        progress=lambda done, total: progress(f"mapping {source.id}", done, total),
    ) as prediction:
        tags = _tags(prediction, bundle, source, section=section, account=account)
        files = _write_layers(prediction, bundle, source, targets=targets, tags=tags, overwrite=overwrite)
        if section.applicability:
            aoa = write_applicability(
                targets["aoa"], bundle, source, codes=prediction.codes, work=folder / ".work" / source.id,
                tags=tags, overwrite=overwrite, progress=progress,
            )  # fmt: skip
            files = replace(files, aoa=aoa)
        if section.polygons:
            files = replace(
                files, polygons=_write_polygons(prediction, folder / f"{source.id}_lc.gpkg", section, overwrite)
            )
        if seam_figure:
            from pipeline.inference.seams import seam_figure as measure

            again = folder / ".work" / f"{source.id}-shifted"
            seams = measure(bundle, source, prediction, out=again, settings=settings)
            files = replace(files, seam=asdict(seams))
        prediction.remove()
    quicklook = folder / f"{source.id}_quicklook.png"
    write_quicklook(
        quicklook, files.class_map, scene=source, confidence=files.confidence, counts=files.counts, title=source.id,
        overwrite=overwrite,
    )  # fmt: skip
    return replace(files, quicklook=quicklook)


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
    write_confidence(targets["conf"], prediction.confidence, grid=grid, tags=tags, overwrite=overwrite)
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
    if "entropy" in prediction.layers:
        write_uncertainty(
            targets["entropy"],
            prediction.layers["entropy"],
            grid=grid,
            measure="entropy",
            tags=tags,
            overwrite=overwrite,
        )
        files = replace(files, entropy=targets["entropy"])
    if "margin" in prediction.layers:
        write_uncertainty(
            targets["margin"], prediction.layers["margin"], grid=grid, measure="margin", tags=tags, overwrite=overwrite
        )
        files = replace(files, margin=targets["margin"])
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


def write_mosaic(
    maps: Sequence[MapFiles], sources: Sequence[Source], *, folder: Path, section: MapSection, overwrite: bool
) -> Path | None:
    """``mosaic_lc.tif`` of several maps where the settings ask for one; None otherwise.

    Raises:
        GridError: maps in several CRSs and none chosen.
        ConfigError: a rule that needs dates or confidence that a map lacks.
    """
    if section.mosaic is None or len(maps) < 2:  # noqa: PLR2004 - one map is no mosaic
        return None
    from rasterio.crs import CRS

    from pipeline.inference.mosaic import MapFile, join_maps, target_grid

    files = [
        MapFile(item.class_map, item.confidence, source.acquired_utc)
        for item, source in zip(maps, sources, strict=True)
    ]
    crs = CRS.from_user_input(section.mosaic_crs) if section.mosaic_crs else None
    grid = target_grid(files, crs=crs)
    joined = join_maps(files, grid=grid, rule=section.mosaic, out=folder / ".work")
    target = folder / "mosaic_lc.tif"
    tags = {"LANDCOVER_MOSAIC": {"rule": section.mosaic, "maps": [item.class_map.name for item in maps]}}
    write_class_map(target, joined.codes, grid=grid, scheme=maps[0].counts.scheme, tags=tags, overwrite=overwrite)
    joined.remove()
    return target


def mapping_outcome(maps: Sequence[MapFiles], *, mosaic: Path | None) -> Outcome:
    """The summary of ``predict``: areas, rate, what was decided, what was written."""
    names = maps[0].counts.scheme.names
    areas = tuple((name, *(f"{item.counts.area_ha[i]:,.1f}" for item in maps)) for i, name in enumerate(names))
    rates = tuple(
        (
            item.name,
            f"{item.figures['mpx']:.2f}",
            f"{item.figures['mpx_per_s']:.2f}",
            item.plan["engine"],
            item.plan["dtype"],
        )
        for item in maps
    )
    seams = {item.name: item.seam for item in maps if item.seam}
    tables = [
        Table("mapped area (ha)", ("class", *(item.name for item in maps)), areas),
        Table("mapping", ("scene", "Mpx", "Mpx/s", "engine", "type"), rates),
    ]
    if seams:
        heads = ("scene", *next(iter(seams.values())))
        rows = tuple((name, *(f"{value:.4g}" for value in figures.values())) for name, figures in seams.items())
        tables.append(Table("seams: disagreement along tile borders against the interior", heads, rows))
    return Outcome(
        summary=f"{len(maps)} scene(s) mapped",
        written=(*(path for item in maps for path in item.files), *([mosaic] if mosaic else [])),
        hint="open the _lc.tif in QGIS: names and colours come with it",
        tables=tuple(tables),
        data={
            "maps": [
                {
                    "scene": item.name,
                    "files": [str(path) for path in item.files],
                    "area_ha": dict(zip(names, item.counts.area_ha, strict=True)),
                    "figures": item.figures,
                    "plan": item.plan,
                    "seam": item.seam,
                }
                for item in maps
            ]
        },
    )
