"""What the user asked for, and what follows from it for one model and one scene: tiles, engine, journal key."""

from __future__ import annotations

import logging
import math
import platform
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.inference.blend import Products
from pipeline.inference.chips import PLANES
from pipeline.inference.engine import (
    Choice,
    Engine,
    free_gpu_bytes,
    make_engine,
    readers_of,
    runs_side_by_side,
    torch_dtype,
    workers_of,
    works_in_strips,
)
from pipeline.inference.fast import layout_of, speed_up
from pipeline.inference.journal import Key
from pipeline.inference.memory import (
    DEFAULT_MEMORY,
    GDAL_CACHE_BYTES,
    INT8_BYTES,
    OPENVINO_BYTES,
    WORKERS,
    Demand,
    choose_tile,
    footprint,
)
from pipeline.inference.order import Order, order_of, quickest
from pipeline.inference.picks import pick_key, recall, remember
from pipeline.inference.reach import effective_halo_px
from pipeline.inference.samples import SAMPLE_PX, range_samples, sample_of
from pipeline.inference.tiles import round_up
from pipeline.inference.trials import Trial, agrees, calibrate, candidates
from pipeline.model.reach import reach_px
from pipeline.scenes.blocks import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.model.bundle import ModelBundle
    from pipeline.model.spec import NetworkSpec
    from pipeline.scenes.scene import Source

log = logging.getLogger(__name__)
# Scenes of fewer pixels are mapped by the first candidate (torch): on two cores the calibration takes some 20 seconds
# (engines convert and compile the network first), in which torch maps about this much.
SMALL_SCENE_PX = 4_000_000


@dataclass(frozen=True)
class PredictSettings:
    """How a scene is mapped. None and "auto" are decided by measurement or by the memory allowed.

    Attributes:
        tile_px: Largest side of what one step writes.
        halo_px: Context read on each side of it; None for what is found to matter on a piece of the scene.
        batch: Tiles that go through the network together.
        engine: "torch", "compiled", "onnxruntime", "openvino" or "auto": measured once per model and machine, and
            kept (see ``pipeline.inference.picks``).
        dtype: "float32", "bfloat16", "int8" or "auto": what is fastest of float32, bfloat16 where the device has it,
            and int8 where ONNX Runtime is installed and 99.5 % of a piece of the scene keep their class.
        device: "cpu", "cuda" or "auto".
        threads: Threads that compute, in all; None for torch's own number.
        memory_bytes: Peak memory; tiles are as large as it allows.
        tta: Average the probabilities over four flips, for four times the cost.
        blend: "crop" writes the inner part of each tile; "hann" averages tiles over their halos.
        probabilities: Also store the probability of every class, in percent.
        entropy: Also store the entropy, in percent of log K.
        margin: Also store the first minus the second probability, in percent.
        aoi: Vector file: only pixels inside its polygons are mapped.
        mask: Vector file: pixels inside its polygons are not mapped.
        shift_px: The first cut comes after so many pixels, in whole strides: another tiling for the seam figure.
    """

    tile_px: int | None = None
    halo_px: int | None = None
    batch: int = 1
    engine: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    memory_bytes: int = DEFAULT_MEMORY
    tta: bool = False
    blend: Literal["crop", "hann"] = "crop"
    probabilities: bool = False
    entropy: bool = False
    margin: bool = False
    aoi: Path | None = None
    mask: Path | None = None
    shift_px: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that have no meaning."""
        for name in ("tile_px", "batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"setting {name} of prediction", got=value, expected="at least 1")
        if self.halo_px is not None and self.halo_px < 0:
            raise ConfigError("setting halo_px of prediction", got=self.halo_px, expected="0 or more")
        if self.blend not in {"crop", "hann"}:
            raise ConfigError("setting blend of prediction", got=self.blend, expected="crop or hann")

    @property
    def products(self) -> Products:
        """Which layers are made."""
        return Products(self.probabilities, self.entropy, self.margin)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


_SIZES = ("tile_px", "halo_px", "stride_px", "batch", "threads", "columns", "cache_bytes")


@dataclass(frozen=True)
class Plan:
    """What was decided for one model and scene.

    Attributes:
        tile_px: Largest side of a write window.
        halo_px: Halo, in whole strides.
        stride_px: Total stride of the network.
        batch: Tiles per pass.
        threads: Threads that compute, in all.
        choice: Engine, type, device.
        columns: Columns of tiles that are mapped before the next ones; 0 for all.
        cache_bytes: GDAL's cache.
        trials: What the calibration measured; not part of the journal.
    """

    tile_px: int
    halo_px: int
    stride_px: int
    batch: int
    threads: int
    choice: Choice
    columns: int = 0
    cache_bytes: int = GDAL_CACHE_BYTES
    trials: tuple[Trial, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, for the journal and the map's tags."""
        plain = {key: value for key, value in asdict(self).items() if key not in {"choice", "trials"}}
        return plain | asdict(self.choice)

    @classmethod
    def from_json(cls, items: dict[str, Any]) -> Plan:
        """The inverse of :meth:`to_json`; a journal from before there was a size has its default."""
        choice = Choice(items["engine"], items["dtype"], items["device"])
        sizes: dict[str, Any] = {key: int(items[key]) for key in _SIZES if key in items}
        return cls(choice=choice, **sizes)


def make_plan(bundle: ModelBundle, source: Source, settings: PredictSettings) -> Plan:
    """Decide what the settings leave open.

    Raises:
        ConfigError: settings that cannot be met (memory, engine, device).
    """
    stride = total_stride_px(bundle)
    threads = settings.threads or torch.get_num_threads()
    choices = candidates(engine=settings.engine, dtype=settings.dtype, device=settings.device)
    exact = exact_halo_px(bundle)
    halo = round_up(settings.halo_px if settings.halo_px is not None else exact or 0, stride)
    measure_halo = settings.halo_px is None and exact is None
    picked, trials = _picked(bundle, source, settings, choices, threads=threads, halo=halo or 2 * stride)
    wanted = demand(bundle, source, choice=picked, halo=halo or 2 * stride, blended=settings.blend == "hann")
    tile = settings.tile_px or _tile(wanted, source, settings, picked)
    if measure_halo:
        engine = engine_of(bundle, picked, threads=threads, source=source)
        halo = effective_halo_px(engine, sample_of(bundle, source, stride), stride_px=stride, tile_px=tile)
        wanted = replace(wanted, halo_px=halo)
        tile = settings.tile_px or _tile(wanted, source, settings, picked)
    tile = round_up(tile, stride)
    if settings.blend == "hann":
        # Only direct neighbours may overlap.
        tile = max(tile, 2 * halo)
    orders = _orders(replace(wanted, halo_px=halo), source, settings, picked)
    order = orders(tile)
    if not settings.tile_px and settings.blend == "crop":
        tile, order = quickest(orders, largest_px=tile, halo_px=halo, stride_px=stride)
    return Plan(
        tile_px=tile,
        halo_px=halo,
        stride_px=stride,
        batch=settings.batch,
        threads=threads,
        choice=picked,
        columns=order.columns,
        cache_bytes=order.cache_bytes,
        trials=tuple(trials),
    )


def _picked(
    bundle: ModelBundle, source: Source, settings: PredictSettings, choices: list[Choice], *, threads: int, halo: int
) -> tuple[Choice, list[Trial]]:
    """The only choice, that of an earlier run, or the one that is measured to be the fastest; and what was measured.

    Choices that the memory does not allow are left out where there are others.
    """

    def tried(among: list[Choice]) -> tuple[Choice, list[Trial]]:
        stride = total_stride_px(bundle)
        sample = sample_of(bundle, source, stride)
        make = partial(engine_of, bundle, threads=threads, source=source)
        return calibrate(make, among, sample, threads=threads, stride_px=stride)

    def recalled(among: list[Choice]) -> Choice | None:
        return recall(pick_key(bundle.hash, among, threads=threads), among)

    fits = partial(_fits, bundle, source, settings, halo=halo)
    known = choices[0] if len(choices) == 1 else recalled(choices)
    if len(choices) > 1 and (known is None or not fits(known)):
        if source.grid.height * source.grid.width < SMALL_SCENE_PX:
            return choices[0], []
        # Only now, since each takes a moment: a network is built and probed for it.
        choices = [choices[0], *filter(fits, choices[1:])]
        known = recalled(choices)
    if known is None:
        picked, trials = tried(choices)
        remember(pick_key(bundle.hash, choices, threads=threads), picked)
        return picked, trials
    if known.dtype != "int8":
        return known, []
    # How well it agrees depends on the scene: a pick of another one holds where it does here too.
    picked, trials = tried([known])
    if choices[0].dtype != "int8" and not agrees(trials[-1]):
        log.info("engine %s instead: it agrees too little on this scene", choices[0])
        picked = choices[0]
    return picked, trials


def _fits(bundle: ModelBundle, source: Source, settings: PredictSettings, choice: Choice, *, halo: int) -> bool:
    """Whether the memory allows tiles for a choice; those that were asked for are the user's own."""
    if settings.tile_px:
        return True
    wanted = demand(bundle, source, choice=choice, halo=halo, blended=settings.blend == "hann")
    try:
        _tile(wanted, source, settings, choice)
    except ConfigError as err:
        log.info("engine %s is not tried: %s", choice, err)
        return False
    return True


def engine_of(bundle: ModelBundle, choice: Choice, *, threads: int, source: Source | None = None) -> Engine:
    """The bundle's fused network in an engine; "int8" takes its ranges from ``source``, the scene to be mapped."""
    samples = range_samples(bundle, source, total_stride_px(bundle)) if source and choice.dtype == "int8" else ()
    channels = bundle.preprocess.channels
    return make_engine(bundle.network(fused=True), choice, channels=channels, threads=threads, samples=samples)


def total_stride_px(bundle: ModelBundle) -> int:
    """The smallest step at which the poolings of all members agree."""
    from pipeline.model.network import stride_px

    return math.lcm(*(stride_px(spec) for spec in bundle.specs))


def exact_halo_px(bundle: ModelBundle) -> int | None:
    """All the context that the members can see on each side of a pixel; None where it is too large to be read."""
    reaches = [_reach_px(spec) for spec in bundle.specs]
    known = [reach for reach in reaches if reach is not None]
    return max(known) if len(known) == len(reaches) else None


def _reach_px(spec: NetworkSpec) -> int | None:
    if spec.head == "chip":
        return (spec.chip_px - spec.chip_stride_px) // 2
    return reach_px(spec) if spec.encoder == "none" else None


def _tile(wanted: Demand, source: Source, settings: PredictSettings, choice: Choice) -> int:
    """The largest tile that the memory allows; of a scene that is more than a moment's work, a tile for each worker."""
    longest = max(source.grid.shape)
    return choose_tile(
        wanted,
        memory_bytes=settings.memory_bytes,
        longest_px=-(-longest // WORKERS) if wanted.side_by_side and longest > SAMPLE_PX else longest,
        gpu_bytes=free_gpu_bytes(choice.device),
    )


def _orders(wanted: Demand, source: Source, settings: PredictSettings, choice: Choice) -> Callable[[int], Order]:
    """Gives the order for tiles of a side; what they leave of the memory may go to GDAL's cache."""
    # Rows of tiles are blended in their order, and readers with files of their own share no decoded blocks.
    files = blocks_of(source) if settings.blend == "crop" and readers_of(choice) == 1 else ()

    def order(side_px: int) -> Order:
        taken = footprint(wanted, tile_px=side_px, batch=settings.batch, on_gpu=choice.device != "cpu").total
        cache = GDAL_CACHE_BYTES + max(settings.memory_bytes - taken, 0)
        shape = {"halo_px": wanted.halo_px, "width_px": source.grid.width}
        return order_of(files, tile_px=side_px, cache_bytes=cache, **shape)

    return order


def demand(bundle: ModelBundle, source: Source, *, choice: Choice, halo: int, blended: bool) -> Demand:
    """What mapping a scene asks of the memory."""
    quick, dtype = works_in_strips(choice), torch_dtype(choice.dtype)
    fused = bundle.network(fused=True)
    network = speed_up(fused) if quick else fused
    return Demand(
        network=network,
        layout=layout_of(network, dtype) if quick else PLANES,
        bands=bundle.preprocess.channels,
        bands_read=len(bundle.bands),
        classes=len(bundle.scheme),
        dtype=dtype,
        halo_px=halo,
        stride_px=total_stride_px(bundle),
        width_px=source.grid.width,
        blended=blended,
        sample_px=min(SAMPLE_PX, max(source.grid.shape)),
        side_by_side=runs_side_by_side(choice),
        workers=workers_of(choice),
        engine_bytes=(INT8_BYTES if choice.dtype == "int8" else 0)
        + (OPENVINO_BYTES if choice.engine == "openvino" else 0),
    )


def journal_key(bundle: ModelBundle, source: Source, settings: PredictSettings) -> Key:
    """What the rows depend on, by part."""
    areas = [_stamp(str(path)) for path in (settings.aoi, settings.mask) if path is not None]
    return Key.of(
        {
            "model": bundle.hash,
            "input": [source.id, source.ledger(), [_stamp(path) for path in source.files], repr(source.grid)],
            "settings": [settings.to_json(), areas],
            "software": [__version__, torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability()],
        }
    )


def _stamp(name: str) -> list[object]:
    """Name, size and time of change of a file; of an archive for a path inside one; the name alone for a remote one."""
    plain = name
    for prefix in ("/vsizip/", "/vsitar/", "/vsigzip/"):
        if plain.startswith(prefix):
            plain = plain.removeprefix(prefix).lstrip("{").partition("}")[0]
    for path in (Path(plain), *Path(plain).parents):
        if path.is_file():
            stat = path.stat()
            return [name, stat.st_size, stat.st_mtime_ns]
    return [name]
