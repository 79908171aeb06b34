"""What follows from the settings for one model and one scene: engine, halo, tiles, order, and the journal's key."""

from __future__ import annotations

import contextlib
import logging
import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline import __version__
from pipeline.files import fingerprint
from pipeline.inference.engine import WORKERS, Choice, Engine, choose_engine, make_engine
from pipeline.inference.measure import class_agreement, effective_halo_px, range_samples, sample_of, tile_seconds
from pipeline.inference.memory import Needs
from pipeline.inference.rows import Key
from pipeline.inference.tiles import (
    GDAL_CACHE_BYTES,
    Order,
    Tile,
    file_blocks,
    order_of,
    plan_tiles,
    quickest,
    round_up,
)
from pipeline.labels.settings import split_source
from pipeline.model.reach import reach_px

if TYPE_CHECKING:
    from pipeline.grid import Grid
    from pipeline.inference.settings import MapSettings
    from pipeline.model.bundle import ModelBundle
    from pipeline.model.spec import NetworkSpec
    from pipeline.scenes.scene import Source

log = logging.getLogger(__name__)
# bfloat16 is taken unasked where so many pixels of a piece of the scene keep their class; below it a type that was
# asked for is warned of. Of a real scene and the default networks 0.65 % of the pixels changed class, half of them
# where float32 was ahead by less than 0.006, nearly all by less than 0.06: places where either class may be.
LEAST_AGREEMENT = 0.99
# An untrained network says nothing of how far a trained one will look: the halo that is taken for its estimate, in
# strides; trained default networks were found to need 2 to 6 (pipeline.inference.measure).
_STRIDES = 4
_SIZES = ("tile_px", "halo_px", "stride_px", "batch", "threads", "columns", "cache_bytes")


@dataclass(frozen=True)
class Plan:
    """What was decided for one model and scene."""

    tile_px: int  # Largest side of a write window
    halo_px: int  # Halo, in whole strides
    stride_px: int  # Total stride of the network
    batch: int  # Tiles per pass
    threads: int  # Threads that compute, in all
    choice: Choice  # Engine, type, device
    columns: int = 0  # Columns of tiles that are mapped before the next ones; 0 for all
    cache_bytes: int = GDAL_CACHE_BYTES  # GDAL's cache
    # Share of a piece of the scene whose class is that of torch in float32; None where not measured
    agreement: float | None = None
    remark: str = ""  # What the user should know of the choice, "" for nothing

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, for the journal and the map's tags."""
        plain = {key: value for key, value in asdict(self).items() if key not in {"choice", "remark"}}
        return plain | asdict(self.choice)

    def tiles(self, grid: Grid) -> tuple[Tile, ...]:
        """All tiles of a grid."""
        return plan_tiles(
            grid,
            tile_px=self.tile_px,
            halo_px=self.halo_px,
            stride_px=self.stride_px,
            one_size=self.choice.one_size,
        )

    @classmethod
    def from_json(cls, items: dict[str, Any]) -> Plan:
        """The inverse of :meth:`to_json`."""
        choice = Choice(items["engine"], items["dtype"], items["device"])
        sizes: dict[str, Any] = {key: int(items[key]) for key in _SIZES if key in items}
        return cls(choice=choice, agreement=items.get("agreement"), **sizes)


def specs_of(bundle: ModelBundle) -> list[NetworkSpec]:
    """Of the members that are run."""
    return [member.spec for member, _ in bundle.averaged]


def total_stride_px(bundle: ModelBundle) -> int:
    """The smallest step at which the poolings of all members agree."""
    from pipeline.model.network import stride_px

    return math.lcm(*(stride_px(spec) for spec in specs_of(bundle)))


def exact_halo_px(bundle: ModelBundle) -> int | None:
    """All the context that the members can see on each side of a pixel; None where it is too large to be read."""
    reaches = [_reach_px(spec) for spec in specs_of(bundle)]
    known = [reach for reach in reaches if reach is not None]
    return max(known) if len(known) == len(reaches) else None


def _reach_px(spec: NetworkSpec) -> int | None:
    if spec.head == "chip":
        return (spec.chip_px - spec.chip_stride_px) // 2
    return reach_px(spec) if spec.encoder == "none" else None


def engine_of(bundle: ModelBundle, choice: Choice, *, threads: int, source: Source | None = None) -> Engine:
    """The model's network in an engine; "int8" takes its ranges from ``source``, the scene to be mapped."""
    samples = range_samples(bundle, source, total_stride_px(bundle)) if source and choice.dtype == "int8" else ()
    channels = bundle.preprocess.channels
    return make_engine(bundle.network(fused=True), choice, channels=channels, threads=threads, samples=samples)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: on pieces of a scene a team of threads waits, spinning, for longer than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_plan(bundle: ModelBundle, source: Source, settings: MapSettings, *, trust: bool = False) -> Plan:
    """Decide what the settings leave open, by measuring on a piece of the scene.

    ``source`` has the model's bands; with ``trust`` the number type is taken without measuring its agreement.

    Raises:
        ConfigError: settings that cannot be met (memory, engine, device).
    """
    return _planned(bundle, source, settings, trust=trust)[0]


def _planned(bundle: ModelBundle, source: Source, settings: MapSettings, *, trust: bool) -> tuple[Plan, Needs]:
    """The plan, and what it needs."""
    choice = choose_engine(settings)
    if bundle.quantity is not None and settings.dtype == "auto":
        choice = replace(choice, dtype="float32")  # three digits of a number are not enough of a value
    threads = settings.threads or torch.get_num_threads()
    with one_thread():
        return _measured(bundle, source, settings, choice=choice, threads=threads, trust=trust)


def _measured(
    bundle: ModelBundle, source: Source, settings: MapSettings, *, choice: Choice, threads: int, trust: bool
) -> tuple[Plan, Needs]:
    """The plan, measured on a piece of the scene, and what it needs."""
    stride = total_stride_px(bundle)
    sample, engine, share, remark = None, None, None, ""
    if choice.dtype != "float32" and not trust:
        sample = sample_of(bundle, source, stride)
        engine = engine_of(bundle, choice, threads=threads, source=source)
        plain = engine_of(bundle, Choice(device=choice.device), threads=threads)
        share = class_agreement(engine, plain, sample)
        found = f"{choice.dtype} gives {100 * share:.2f} % of a piece of the scene the class of float32"
        log.info("%s", found)
        if share < LEAST_AGREEMENT:
            remark = f"{source.id}: {found}"
            if settings.dtype == "auto":
                remark += ", which is less than 99 %: it is mapped in float32, which takes longer"
                choice, engine, share = replace(choice, dtype="float32"), plain, None
    given = settings.halo_px if settings.halo_px is not None else exact_halo_px(bundle)
    needs = Needs.of(bundle, choice, stride_px=stride, batch=settings.batch)
    halo = round_up(given, stride) if given is not None else 2 * stride
    tile = _tile_px(needs, settings, source, halo_px=halo)
    if given is None:
        sample = sample_of(bundle, source, stride) if sample is None else sample
        engine = engine or engine_of(bundle, choice, threads=threads, source=source)
        values = bundle.quantity is not None
        halo = effective_halo_px(engine, sample, stride_px=stride, tile_px=tile, values=values)
        tile = _tile_px(needs, settings, source, halo_px=halo)
    plan = Plan(tile, halo, stride, settings.batch, threads, choice, agreement=share, remark=remark)
    return _ordered(plan, needs, settings, source), needs


def _tile_px(needs: Needs, settings: MapSettings, source: Source, *, halo_px: int) -> int:
    """The side that was asked for, or the largest that the memory allows, in whole strides."""
    longest = max(source.grid.shape)
    asked = settings.tile_px or needs.largest_tile_px(
        halo_px=halo_px, memory_bytes=settings.memory_bytes, longest_px=longest
    )
    return round_up(asked, needs.stride_px)


def _ordered(plan: Plan, needs: Needs, settings: MapSettings, source: Source) -> Plan:
    """The plan with its order; smaller tiles where they leave GDAL's cache the memory that saves more time."""
    # Readers with files of their own share no decoded blocks.
    files = file_blocks(source) if plan.choice.readers == 1 else ()

    def order(side_px: int) -> Order:
        left = 0  # a tile that was asked for is not counted
        if not settings.tile_px:
            left = settings.memory_bytes - needs.peak_bytes(side_px, halo_px=plan.halo_px)
        return order_of(
            files, tile_px=side_px, halo_px=plan.halo_px, width_px=source.grid.width,
            cache_bytes=GDAL_CACHE_BYTES + max(left, 0),
        )  # fmt: skip

    tile, found = plan.tile_px, order(plan.tile_px)
    if not settings.tile_px:
        tile, found = quickest(order, largest_px=tile, halo_px=plan.halo_px, stride_px=plan.stride_px)
    return replace(plan, tile_px=tile, columns=found.columns, cache_bytes=found.cache_bytes)


@dataclass(frozen=True)
class MappingCost:
    """What mapping a scene will take."""

    memory_bytes: int  # Peak memory of the process
    seconds: float  # Time of the run
    disk_bytes: int  # Rows that are kept until the maps are written
    plan: Plan  # Tiles and engine that this holds for


def estimate(bundle: ModelBundle, source: Source, settings: MapSettings) -> MappingCost:
    """What mapping will take with these settings, from one tile that is read and run.

    An untrained bundle of the same networks serves as well: its halo is taken as usual, its number type by the device.

    Raises:
        ConfigError: the settings cannot be met.
    """
    source = source.select(bundle.bands)
    halo = settings.halo_px
    if halo is None and exact_halo_px(bundle) is None:
        halo = _STRIDES * total_stride_px(bundle)
    plan, needs = _planned(bundle, source, settings.model_copy(update={"halo_px": halo}), trust=True)
    choice = plan.choice
    tiles = plan.tiles(source.grid)
    middle = tiles[len(tiles) // 2]
    engine = engine_of(bundle, choice, threads=plan.threads, source=source)
    side_by_side = WORKERS if choice.side_by_side and plan.threads >= WORKERS else 1
    layers = len(settings.products.layers) + (len(bundle.scheme) - 1 if settings.products.probabilities else 0)
    side = min(plan.tile_px, max(source.grid.shape))
    return MappingCost(
        memory_bytes=needs.peak_bytes(side, halo_px=plan.halo_px, cache_bytes=plan.cache_bytes),
        seconds=tile_seconds(bundle, source, engine, window=middle.read) * len(tiles) / side_by_side,
        disk_bytes=layers * source.grid.height * source.grid.width,
        plan=plan,
    )


def journal_key(bundle: ModelBundle, source: Source, settings: MapSettings) -> Key:
    """What the rows depend on, by part."""
    areas = [fingerprint([split_source(path)[0]]) for path in (settings.aoi, settings.mask) if path is not None]
    machine = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    mapping = settings.model_dump(mode="json", include=MAPPING) | vars(settings.products)
    files = fingerprint([_on_disk(name) for name in source.files])
    return Key.of(
        {
            "model": bundle.hash,
            "input": [source.id, source.ledger(), files, repr(source.grid)],
            "settings": [mapping, areas],
            "software": [__version__, torch.__version__, _version("openvino"), *machine],
        }
    )


# The settings that rows depend on; the others are of what is written from them.
MAPPING = {
    "engine", "dtype", "device", "memory", "threads", "tile_px", "halo_px", "batch", "aoi", "mask",
    "probabilities", "entropy", "margin",
}  # fmt: skip


def _on_disk(name: str) -> str:
    """The archive of a path inside one; other names as they are."""
    plain = name
    for prefix in ("/vsizip/", "/vsitar/", "/vsigzip/"):
        if plain.startswith(prefix):
            plain = plain.removeprefix(prefix).lstrip("{").partition("}")[0]
    paths = (Path(plain), *Path(plain).parents)
    return next((str(path) for path in paths if path.is_file()), name)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
