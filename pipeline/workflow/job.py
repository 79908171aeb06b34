"""A job: a configuration with what it stands for, opened when first needed and kept."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.config import Config, load_config
from pipeline.documents import read_json
from pipeline.errors import ConfigError, InputError, LabelWarning, OutputError, counted
from pipeline.files import fingerprint, hash_content, hash_of, prepare_folder
from pipeline.inference.areas import read_area
from pipeline.labels.settings import split_source
from pipeline.model.spec import SURROUNDINGS_REACH_PX
from pipeline.runs import LABELS, RunFolder
from pipeline.scenes.joining import day_of
from pipeline.scenes.survey import usable_px
from pipeline.splits.folds import group_split, warn_of_corner
from pipeline.splits.search import default_block_m, split_blocks
from pipeline.splits.split import Part, Split, TrainingScene, check_leakage
from pipeline.workflow.inputs import burn_labels, legend_of, open_labels, open_sources

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.labels.source import Labels
    from pipeline.legend import ClassScheme
    from pipeline.quantity import Quantity
    from pipeline.scenes.scene import Source
    from pipeline.workflow.outcome import Progress

STAGES = ("chips", "train", "predict", "assess", "report")
# What landcover labels audit writes into the run folder.
AUDIT = "labels_audit.gpkg"
# What cross-validation writes there.
LEARNING_CURVE = "learning_curve.json"
CROSSVAL = "crossval.json"
# What a map is measured against on every pixel, where there is such a thing: the demo writes it.
FULL_REFERENCE = "full_reference.json"
# Files that stages write there.
HISTORY, AREAS, ACCURACY = "training.csv", "areas.json", "accuracy.json"
CONFUSION, SAMPLES, FEATURES = "confusion.csv", "samples.csv", "features.gpkg"


@dataclass(frozen=True)
class Job:
    """One configuration file and what it stands for."""

    path: Path  # The configuration file
    config: Config  # Its content
    dry: bool = False  # Nothing is written: masks of clouds that are not there yet are not made

    @classmethod
    def load(cls, path: Path, *, changes: Sequence[str] = (), dry: bool = False) -> Job:
        """From a configuration file, with settings other than the file's as ``map.memory=1GB``."""
        return cls(path, load_config(path, changes=changes), dry)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.output)

    def open_folder(self) -> RunFolder:
        """The run folder, made if needed.

        Raises:
            OutputError: it cannot be written.
        """
        return RunFolder(prepare_folder(self.folder))

    def require_scenes(self) -> None:
        """Refuse a job of samples alone where a scene is learned from or mapped.

        Raises:
            ConfigError: no scene.
        """
        if not self.config.scenes:
            fix = "landcover check and crossval take samples without a scene; name one under scenes for a map"
            raise ConfigError("no scene to learn from or to map", path=self.path, fix=fix)

    @property
    def model_path(self) -> Path:
        """Where the model is."""
        return self.folder / "model" / "model.safetensors"

    @property
    def maps_folder(self) -> Path:
        """Where the maps are."""
        return self.folder / "maps"

    @property
    def chips_folder(self) -> Path:
        """Where chips and labels are, as they are used."""
        return self.folder / "chips"

    @property
    def index_path(self) -> Path:
        """Where the chip index is."""
        return self.chips_folder / "index.parquet"

    @property
    def labels_path(self) -> Path:
        """Where the labels are, as they were used."""
        return self.folder / LABELS

    def map_of(self, scene_id: str, kind: str = "lc") -> Path:
        """A raster of a scene's map: its classes, ``value`` of a continuous target, ``conf``."""
        return self.maps_folder / f"{scene_id}_{kind}.tif"

    def objects_of(self, scene_id: str) -> Path:
        """The objects of a scene's map, where classes are marked."""
        return self.maps_folder / f"{scene_id}_objects.gpkg"

    @cached_property
    def scheme(self) -> ClassScheme:
        """The legend; of a continuous target its value classes."""
        return self.labels.scheme if self.is_value else legend_of(self.config)

    @property
    def is_value(self) -> bool:
        """Whether the target is continuous."""
        return self.config.labels.kind == "value"

    @cached_property
    def _values(self) -> tuple[Labels, Quantity]:
        from pipeline.labels.values import read_values

        return read_values(self.config.labels)

    @property
    def quantity(self) -> Quantity | None:
        """What a continuous target measures; None for classes."""
        return self._values[1] if self.is_value else None

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """Group of each sample, int64 [poly_id], where the configuration names an attribute for it."""
        if not (self.is_value and self.config.labels.value.group):
            return None
        frame = self.labels.frame
        groups = np.full(int(frame["poly_id"].max()) + 1, -1, dtype=np.int64)
        groups[frame["poly_id"]] = np.unique(frame["group"].to_numpy(dtype=str), return_inverse=True)[1]
        return groups

    @cached_property
    def split_by_groups(self) -> bool:
        """Whether groups of samples replace the blocks; LabelWarning where nearly every group is a single sample."""
        if self.groups is None:
            return False
        from pipeline.labels.values import holds_several

        group, name = self.labels.frame["group"], self.config.labels.value.group
        if holds_several(group.tolist()):
            return True
        held = f"{counted(len(group), 'sample')} in {counted(group.nunique(), 'group')}"
        text = f"labels.value.group: {name} has {held}, so parts are made of blocks, groups kept together"
        warnings.warn(f"{self.labels.path}: {text}", LabelWarning, stacklevel=2)
        return False

    @property
    def object_codes(self) -> tuple[int, ...]:
        """Codes of the classes that are mapped as objects."""
        return tuple(self.scheme.by_name(name).code for name in self.config.mapping.objects.classes)

    @property
    def object_indices(self) -> tuple[int, ...]:
        """Network indices of these classes."""
        return tuple(int(self.scheme.code_to_index[code]) for code in self.object_codes)

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The scenes as the network sees them; where layers have dates, once for each date of a sample."""
        return open_sources(self.config, days=self.days, make=not self.dry) if self.config.scenes else ()

    @cached_property
    def days(self) -> tuple[date, ...]:
        """Dates of the samples and those that are to be mapped, where layers have dates."""
        series = any(item.kind == "series" for item in self.config.inputs.layers)
        if not (self.is_value and series and self.config.labels.value.date):
            return ()
        sampled = {found.date() for found in self.labels.frame["date"].dropna()}
        return tuple(sorted(sampled | set(self.config.labels.value.mapped)))

    @property
    def mapped(self) -> tuple[Source, ...]:
        """The scenes that are mapped: all, where layers have dates those of the days asked for, or the last."""
        if not self.days:
            return self.sources
        wanted = self.config.labels.value.mapped or (self.days[-1],)
        return tuple(source for source in self.sources if day_of(source) in wanted)

    @cached_property
    def labels(self) -> Labels:
        """The label polygons, or samples of values."""
        if self.is_value:
            return self._values[0]
        return open_labels(self.config, lambda: self.sources)

    @cached_property
    def pixels(self) -> tuple[LabelledPixels, ...]:
        """The labelled pixels, one set per scene."""
        if self.is_value:
            from pipeline.labels.values import burn_values

            return tuple(
                burn_values(self.labels, source.grid, day=day_of(source) if self.days else None)
                for source in self.sources
            )
        return burn_labels(self.labels, self.sources, self.config)

    @property
    def reach_px(self) -> int:
        """How far from a labelled pixel the network looks when it learns: half a chip; of values the surroundings."""
        seen = SURROUNDINGS_REACH_PX if self.is_value else self.config.chips.size_px // 2
        return seen + max(self.config.inputs.textures, default=0) // 2

    def check_leakage(self) -> None:
        """Prove that nothing that is tested is learned from.

        Chips reach over the labels of classes; a sample's value stays at its own pixels.

        Raises:
            SplitError: a sample or a pixel on two sides.
        """
        if not self.split_by_groups:
            reach_px = 0 if self.is_value else self.reach_px
            check_leakage(self.labelled, self.split, reach_px=reach_px, buffer_m=self.buffer_m, shared=self.is_value)

    @property
    def buffer_m(self) -> float:
        """Distance kept free between the parts."""
        if self.config.split.buffer_m is not None:
            return self.config.split.buffer_m
        return self.reach_px * max(self.sources[0].grid.pixel_size_m)

    @property
    def block_m(self) -> float:
        """Side of the blocks."""
        return self.config.split.block_m or default_block_m(self.labelled, buffer_m=self.buffer_m)

    def _mapped_px(self, source: Source) -> float:
        """About how many pixels of a scene are mapped."""
        area = read_area(source.grid, aoi=self.config.map.aoi)
        return usable_px(source) if area is None or area.inside is None else min(usable_px(source), area.inside_px)

    @property
    def training_scenes(self) -> list[TrainingScene]:
        """The scenes that have labels, with them."""
        pairs = zip(self.sources, self.pixels, strict=True)
        return [TrainingScene(source, pixels) for source, pixels in pairs if len(pixels)]

    @property
    def labelled(self) -> list[LabelledPixels]:
        """The labelled pixels of the scenes that have any."""
        return [pixels for pixels in self.pixels if len(pixels)]

    @cached_property
    def split(self) -> Split:
        """Which polygon is for what; SplitWarning where all lie in a corner."""
        warn_of_corner(self.training_scenes, mapped=self._mapped_px)
        if self.groups is not None and self.split_by_groups:
            settings = self.config.split
            return group_split(self.labelled, self.groups, fractions=settings.fractions, seed=settings.seed)
        return split_blocks(
            self.labelled, block_m=self.block_m, buffer_m=self.buffer_m, fractions=self.config.split.fractions,
            seed=self.config.split.seed, scheme=self.scheme, without_validation=self.config.training.without_validation,
            groups=self.groups,
        )  # fmt: skip

    @property
    def test_pixels(self) -> list[tuple[int, LabelledPixels]]:
        """The test pixels of each scene that has some, with the scene's number."""
        parts = ((number, self.split.pixels(pixels, Part.TEST)) for number, pixels in enumerate(self.pixels))
        return [(number, pixels) for number, pixels in parts if len(pixels)]

    @cached_property
    def input_hash(self) -> str:
        """Changes when a scene, the labels, or what is made of them does."""
        used = {key: self._settings[key] for key in ("scenes", "inputs", "labels", "classes")}
        return hash_of([__version__, used, list(self.input_files.values())])

    @cached_property
    def input_files(self) -> dict[str, str]:
        """A short hash of every file that is read, by its path as seen from the configuration."""
        files = [path for source in self.sources for path in source.files]
        weights = [path] if Path(path := self.config.training.context.weights).is_absolute() else []
        found = fingerprint([*files, *self.config.labels.files, *weights])
        return {self._portable(path): value for path, value in found.items()}

    @property
    def seeds(self) -> dict[str, int]:
        """Every seed of the job."""
        config = self.config
        return {"split": config.split.seed, "chips": config.chips.seed, "training": config.training.seed}

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """The settings with paths as seen from the configuration, so that a moved job is the same job."""
        text = json.dumps(self.config.model_dump(mode="json"))
        plain: dict[str, Any] = json.loads(self._portable(text))
        return plain

    def _portable(self, text: str) -> str:
        return text.replace(str(self.path.resolve().parent), ".")

    def stage_key(self, stage: str) -> str:
        """Changes when anything that a stage depends on does: its own settings, and those of the stages before."""
        sections = ("split", "chips", "training", "map", "assessment", "name")[: 2 + STAGES.index(stage)]
        parts: list[Any] = [self.input_hash, stage, {key: self._settings[key] for key in sections}]
        if stage == "chips":
            parts.append(self.config.training.head)
        if stage == "train":  # an index that was edited is another training set
            parts.append(list(fingerprint([self.index_path]).values()))
            parts += [self.object_indices] if self.object_indices else []  # classes that map.objects names are lifted
        if stage in {"predict", "assess", "report"}:
            areas = [split_source(path)[0] for path in (self.config.map.aoi, self.config.map.mask) if path]
            model = hash_content(self.model_path) if self.model_path.is_file() else None
            parts.append([model, *fingerprint(areas).values()])
        if stage == "report":  # report and project show what others wrote into the run folder
            shown = [self.folder / name for name in (AUDIT, LEARNING_CURVE, FULL_REFERENCE)]
            parts += [[path.name, *fingerprint([path]).values()] for path in shown if path.exists()]
        return hash_of(parts)

    @property
    def resume_key(self) -> str:
        """Changes when anything that the model depends on does: a job with the same may go on with its training."""
        training = self._portable(json.dumps(self.config.training.resumable))
        return hash_of([self.input_hash, self._settings["split"], self._settings["chips"], training])


@dataclass(frozen=True)
class StageRun:
    """What a stage is given."""

    job: Job  # The job, with the command line's wishes in its configuration
    resume: bool  # Training goes on from its last checkpoint
    progress: Progress  # For the terminal
    # Figures of the stage for ``run.json``; the stage fills it in
    facts: dict[str, float] = field(default_factory=dict)


def refuse_other_figures(path: Path, key: str) -> None:
    """Stop before anything is computed where a file of figures is of another job.

    Raises:
        OutputError: it is.
    """
    if not path.exists():
        return
    try:
        known = read_json(path).get("key")
    except (InputError, AttributeError):
        known = None
    if known != key:
        raise OutputError("figures of other folds or settings are there", path=path, fix="add --overwrite")
