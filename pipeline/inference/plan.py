"""What the user asked for, and what follows from it for one model and one scene: tiles, engine, journal key."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.inference.blend import Products
from pipeline.inference.demand import total_stride_px
from pipeline.inference.engine import Choice, readers_of, wants_one_size
from pipeline.inference.engines import Engines
from pipeline.inference.fitting import Fitting
from pipeline.inference.journal import Key
from pipeline.inference.memory import DEFAULT_MEMORY, GDAL_CACHE_BYTES, Demand, footprint
from pipeline.inference.order import Order, order_of, quickest
from pipeline.inference.picks import pick_engine
from pipeline.inference.tiles import Tile, plan_tiles, round_up
from pipeline.inference.versions import engine_versions
from pipeline.scenes.blocks import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.grid import Grid
    from pipeline.inference.trials import Trial
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source


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

    def tiles(self, grid: Grid, *, shift_px: int = 0) -> tuple[Tile, ...]:
        """All tiles of a grid; the first cut comes after ``shift_px``."""
        return plan_tiles(
            grid,
            tile_px=self.tile_px,
            halo_px=self.halo_px,
            stride_px=self.stride_px,
            shift_px=shift_px,
            one_size=wants_one_size(self.choice),
        )

    @classmethod
    def from_json(cls, items: dict[str, Any]) -> Plan:
        """The inverse of :meth:`to_json`; a journal from before there was a size has its default."""
        choice = Choice(items["engine"], items["dtype"], items["device"])
        sizes: dict[str, Any] = {key: int(items[key]) for key in _SIZES if key in items}
        return cls(choice=choice, **sizes)


def make_plan(
    bundle: ModelBundle, source: Source, settings: PredictSettings, *, engines: Engines | None = None
) -> Plan:
    """Decide what the settings leave open.

    Args:
        bundle: The model.
        source: The scene, with the model's bands.
        settings: What was asked for.
        engines: Where the engine that is picked is kept, for whoever maps the scene then.

    Raises:
        ConfigError: settings that cannot be met (memory, engine, device).
    """
    stride = total_stride_px(bundle)
    threads = settings.threads or torch.get_num_threads()
    fitting = Fitting(engines or Engines(bundle, source), settings, threads)
    picked, trials = pick_engine(fitting)
    halo, tile = fitting.halo_and_tile(picked)
    tile = round_up(tile, stride)
    orders = _orders(replace(fitting.demand(picked), halo_px=halo), source, settings, picked)
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


def _orders(wanted: Demand, source: Source, settings: PredictSettings, choice: Choice) -> Callable[[int], Order]:
    """Gives the order for tiles of a side; what they leave of the memory may go to GDAL's cache."""
    # Rows of tiles are blended in their order, and readers with files of their own share no decoded blocks.
    files = blocks_of(source) if settings.blend == "crop" and readers_of(choice) == 1 else ()

    def order(side_px: int) -> Order:
        taken = footprint(wanted, tile_px=side_px, on_gpu=choice.device != "cpu").total
        cache = GDAL_CACHE_BYTES + max(settings.memory_bytes - taken, 0)
        shape = {"halo_px": wanted.halo_px, "width_px": source.grid.width}
        return order_of(files, tile_px=side_px, cache_bytes=cache, **shape)

    return order


def journal_key(bundle: ModelBundle, source: Source, settings: PredictSettings) -> Key:
    """What the rows depend on, by part."""
    areas = [_stamp(str(path)) for path in (settings.aoi, settings.mask) if path is not None]
    machine = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    return Key.of(
        {
            "model": bundle.hash,
            "input": [source.id, source.ledger(), [_stamp(path) for path in source.files], repr(source.grid)],
            "settings": [settings.to_json(), areas],
            "software": [__version__, torch.__version__, *engine_versions(), *machine],
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
