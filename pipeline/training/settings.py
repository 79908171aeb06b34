"""FitSettings: how a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import ModelError
from pipeline.model.spec import HEADS
from pipeline.splits.split import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.splits.split import Split

LEARNED = "learned"
# How long and on what is trained, not what is learned: a run may be resumed with others.
WHEN_AND_WHERE = ("time_limit_s", "devices", "nodes")


@dataclass(frozen=True)
class FitSettings:
    """How a model is trained; which defaults were measured, and which not, is in ``docs/learning.md``.

    Attributes:
        head: "unet" gives every pixel a class; "chip" gives whole chips the class of the polygon in their middle.
        encoder: Encoder of the network with context ("resnet18" ..., "vgg11_bn" ..., or "none": spectra alone).
        weights: Pretrained weights of the encoder: "none", a record's name, "imagenet", or a file.
        weights_bands: Band names of a file's first convolution.
        frozen: Keep a pretrained encoder as it is and train the rest.
        chip_px: Side of a chip.
        steps: Batches.
        batch: Chips in a batch.
        lr: Peak learning rate.
        layer_decay: Encoder stages learn this much slower, stage by stage towards the input.
        weight_decay: AdamW's.
        dropout: Of feature channels before the head.
        smoothing: Label smoothing.
        soft_weight: Weight of the teacher's opinion on unlabelled pixels; 0 trains on labels alone.
        teacher_trees: Trees of each of the teacher's forests.
        soft_pixels: About how many pixels the teacher is asked about.
        pixel_steps: Batches of the network of single pixels and their surroundings, or of chips' statistics.
        pixel_batch: Pixels in a batch; of chips at most 256.
        pixel_lr: Its peak learning rate.
        per_polygon: Most pixels of one polygon that the teacher learns from.
        labelled_chips: Most chips around labels that are held in memory.
        unlabelled_chips: Chips elsewhere in the scenes.
        size_power: 0 weighs pixels alike, 1 polygons alike.
        class_power: 0 weighs pixels alike, 1 classes alike.
        gain: Jitter of brightness per chip.
        shift: Jitter per chip and band, in deviations.
        noise: Jitter per pixel and band, in deviations.
        patience: Validations (every tenth of the steps) without a better loss on the validation polygons after which
            the network with context stops, its best state kept; 0 trains to the end of the schedule.
        refit: Learn from the validation polygons too; not with ``patience``, which needs them. It holds for the forest
            that the networks are compared with as well.
        context_share: Share of the networks with context in the average; 0 does not train them; "learned" finds it on
            the validation polygons (``pipeline.training.trial``); None goes by weights and polygons
            (``pipeline.training.members.context_share``).
        ensemble: Networks of each kind, from different seeds, that share what their kind has of the average.
        ema: Decay of the moving average of the weights that the networks with context end as; 0 keeps the last.
        stem_stride: Stride of the encoder's stem.
        depth: Stages of the encoder.
        devices: GPUs, or processes where there is no GPU, of each machine that train the network with context together.
        nodes: Machines that do.
        time_limit_s: Training stops after this many seconds and keeps what it has.
        seed: Of everything that is drawn.
    """

    head: Literal["unet", "chip"] = "unet"
    encoder: str = "resnet18"
    weights: str = "none"
    weights_bands: tuple[str, ...] = ()
    frozen: bool = False
    chip_px: int = 64
    steps: int = 300
    batch: int = 8
    lr: float = 3e-3
    layer_decay: float = 1.0
    weight_decay: float = 0.02
    dropout: float = 0.1
    smoothing: float = 0.05
    soft_weight: float = 2.0
    teacher_trees: int = 100
    soft_pixels: int = 100_000
    pixel_steps: int = 1500
    pixel_batch: int = 1024
    pixel_lr: float = 5e-3
    per_polygon: int = 100
    labelled_chips: int = 400
    unlabelled_chips: int = 250
    size_power: float = 0.5
    class_power: float = 0.5
    gain: float = 0.05
    shift: float = 0.05
    noise: float = 0.02
    patience: int = 0
    refit: bool = True
    context_share: float | Literal["learned"] | None = None
    ensemble: int = 1
    ema: float = 0.0
    stem_stride: int = 4
    depth: int = 4
    devices: int = 1
    nodes: int = 1
    time_limit_s: float = 540.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot train."""
        if self.head not in HEADS:
            raise ModelError("training setting head", got=self.head, expected=" or ".join(HEADS))
        for name in (
            "chip_px",
            "steps",
            "batch",
            "teacher_trees",
            "per_polygon",
            "labelled_chips",
            "lr",
            "ensemble",
            "devices",
            "nodes",
        ):
            if not getattr(self, name) > 0:
                raise ModelError(f"training setting {name}", got=getattr(self, name), expected="more than 0")
        if isinstance(self.context_share, int | float) and not 0 <= self.context_share <= 1:
            raise ModelError("training setting context_share", got=self.context_share, expected="0..1")
        if self.context_share == LEARNED and self.head == "chip":
            raise ModelError(
                "training setting context_share", got=f"{LEARNED} with head chip", expected="head unet, or a number"
            )
        if not 0 <= self.ema < 1:
            raise ModelError("training setting ema", got=self.ema, expected="0 to below 1")
        if self.devices * self.nodes > self.batch:
            raise ModelError(
                "training setting batch: every device needs a chip of each batch",
                got=f"{self.batch} chips for {self.devices} x {self.nodes} devices",
                fix="raise batch, or ask for fewer devices",
            )

    @property
    def learned_parts(self) -> tuple[Part, ...]:
        """Parts that teach, networks and forest alike; with ``patience`` VALIDATION decides when to stop instead."""
        return (Part.TRAIN, Part.VALIDATION) if self.refit and not self.patience else (Part.TRAIN,)


def learned_polygons(split: Split, settings: FitSettings) -> NDArray[np.int32]:
    """Ids of the polygons that networks and forest learn from, int32, rising."""
    return np.flatnonzero(np.isin(split.part, settings.learned_parts)).astype(np.int32)
