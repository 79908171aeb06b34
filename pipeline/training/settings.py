"""Settings of training: which chips, and what is trained on them. Each section acts, or is off as a whole.

``docs/learning.md`` has which defaults were measured, and on what.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.experts.settings import ENOUGH_POLYGONS, ExpertSettings
from pipeline.settings import Fraction, Settings, absolute, refuse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.splits.split import Part, Split

NO_WEIGHTS, AUTO = "none", "auto"
NO_FIT = "no pretrained weights at hand fit"
# Files that training.context.weights may name; anything else is a record's name.
WEIGHT_SUFFIXES = frozenset({".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar"})
# Share of a network with context that no held-out polygons can judge: one from random weights, or with another stem.
# A guess: from random weights it made no set better (docs/learning.md).
UNJUDGED_SHARE = 0.15
# Keys of the network with context that are read at its steps alone, or to stop them.
STEP_KEYS = (
    "steps", "batch", "lr", "weight_decay", "dropout", "smoothing", "soft_weight", "patience", "devices", "nodes",
)  # fmt: skip

Encoder = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


class ChipSettings(Settings):
    """Training chips: windows around labelled pixels, and windows anywhere in the scenes."""

    size_px: int = Field(64, ge=8, le=1024, description="Side of a chip in pixels.")
    labelled: int = Field(
        400,
        ge=1,
        description="Most chips around labels, over all scenes; every polygon has one first, then every class.",
    )
    unlabelled: int = Field(250, ge=0, description="Chips anywhere in the scenes, for soft labels; at most all.")
    seed: int = Field(0, ge=0, description="Seed of the choice.")


class PixelSettings(Settings):
    """The network of single pixels and their surroundings, or with head chip of chips' statistics."""

    enabled: bool = Field(default=True, description="Off: not trained; the network with context makes the map alone.")
    steps: int = Field(1500, ge=1, description="Batches.")
    batch: int = Field(1024, ge=1, description="Pixels in a batch; of chips at most 256.")
    lr: float = Field(5e-3, gt=0, description="Peak learning rate (one cycle, AdamW); of values at most 0.003.")
    weight_decay: float = Field(1e-4, ge=0, description="L2 weight decay.")


class ContextSettings(Settings):
    """The network with context: a pretrained encoder and linear scores, or one from random weights and a decoder."""

    enabled: bool = Field(default=True, description="Off: not trained; pretrained weights are not looked for.")
    encoder: Encoder | None = Field(
        None, description="Architecture of the encoder. Default: that of the weights; resnet18 without weights."
    )
    weights: str = Field(
        AUTO,
        description="auto: pretrained weights that are at hand and fit the scene (docs/weights.md), where held-out "
        "polygons speak for them; none: random weights; a record's name; imagenet; or a file.",
    )
    weights_bands: tuple[str, ...] = Field((), description="Bands of a weights file's first convolution, by name.")
    frozen: bool | None = Field(
        None,
        description="Keep the encoder as it is. Default: false for pixels, where it is fine-tuned from the linear "
        "discriminant on, at small rates; true for whole chips: the discriminant itself, without steps, for which the "
        "keys of steps are refused.",
    )
    steps: int = Field(300, ge=1, description="Batches.")
    batch: int = Field(8, ge=1, description="Chips in a batch.")
    lr: float = Field(3e-3, gt=0, description="Peak learning rate (one cycle, AdamW).")
    weight_decay: float = Field(0.02, ge=0, description="L2 weight decay.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of feature channels dropped before the head.")
    smoothing: float = Field(0.05, ge=0, lt=1, description="Label smoothing.")
    soft_weight: float = Field(
        2.0, ge=0, description="Weight of the experts' soft labels beside the labels; 0 trains on labels alone."
    )
    share: Fraction | None = Field(
        None,
        gt=0,
        description="Share in the average beside the network of pixels, which must be on. Default: what it earns on "
        "held-out polygons, from 100 polygons on; where it earns nothing it is not trained.",
    )
    patience: int = Field(
        0, ge=0, description="Validations without improvement before training stops; 0: never. Needs refit: false."
    )
    devices: int = Field(
        1, ge=1, description="GPUs (without one: processes) of each machine that train together; they share each batch."
    )
    nodes: int = Field(1, ge=1, description="Machines that train together, the same command on each (docs/scale.md).")

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: str, info: ValidationInfo) -> str:
        """A file's path is relative to the configuration, a record's name is a name."""
        is_file = "/" in value or "\\" in value or Path(value).suffix.lower() in WEIGHT_SUFFIXES
        return absolute(value, info) if is_file else value

    @model_validator(mode="after")
    def _fits(self) -> ContextSettings:
        wrong = {
            f"every device needs a chip of each batch: batch {self.batch} for {self.devices} x {self.nodes} devices; "
            "raise batch, or ask for fewer devices": self.devices * self.nodes > self.batch,
            "weights_bands without a weights file": self.weights_bands and self.weights in {NO_WEIGHTS, AUTO},
            "frozen with weights: none keeps an encoder of random weights; set frozen to false, or name weights":
                self.enabled and self.frozen and self.weights == NO_WEIGHTS,
            "encoder with weights: auto, which decide it; set weights to none, a name or a file":
                self.encoder is not None and self.weights == AUTO,
        }  # fmt: skip
        refuse(wrong)
        return self

    @property
    def architecture(self) -> Encoder:
        """Of an encoder that is built from its name."""
        return self.encoder or "resnet18"

    @property
    def frozen_first(self) -> bool:
        """Whether a frozen pretrained encoder is judged by held-out polygons: its weights fit the bands as they are."""
        return self.enabled and self.weights != NO_WEIGHTS and self.encoder is None and not self.weights_bands


class TrainingSettings(Settings):
    """What is trained: experts, a network of pixels, a network with context. docs/learning.md has what was measured."""

    head: Literal["unet", "chip"] = Field(
        "unet",
        description="unet gives every pixel a class; chip gives whole chips the class of the polygon in their middle, "
        "and maps cells of a quarter of a chip.",
    )
    experts: ExpertSettings = Field(default_factory=ExpertSettings)
    pixels: PixelSettings = Field(default_factory=PixelSettings)
    context: ContextSettings = Field(default_factory=ContextSettings)
    refit: bool = Field(
        default=True,
        description="Networks, experts and the random forest learn from the validation polygons too.",
    )
    time_limit_s: float = Field(
        540.0, gt=0, description="No expert and no step of a network is begun after this many seconds of training."
    )
    seed: int = Field(0, ge=0, description="Same seed, same machine: same model.")

    @model_validator(mode="after")
    def _trains(self) -> TrainingSettings:
        context, plain = self.context, ContextSettings()
        idle = [key for key in STEP_KEYS if self.takes_no_steps and getattr(context, key) != getattr(plain, key)]
        wrong = {
            "nothing to train: pixels and context are off": not (self.pixels.enabled or context.enabled),
            f"{', '.join(f'context.{key}' for key in idle)} without effect: the pretrained encoder is kept as it is, "
            "under a linear discriminant that takes no steps; leave out what is named, or set context.frozen: false":
                idle,
            "context.patience stops training by the validation polygons; set refit: false":
                context.enabled and context.patience and self.refit,
            "context.share with pixels off, where the network with context makes the map alone; leave it out":
                context.share is not None and not self.pixels.enabled,
        }  # fmt: skip
        refuse(wrong)
        return self

    @property
    def learned_parts(self) -> tuple[Part, ...]:
        """Parts that networks, experts and the random forest learn from."""
        from pipeline.splits.split import Part  # it brings scipy, which no help of a command needs

        return (Part.TRAIN, Part.VALIDATION) if self.refit else (Part.TRAIN,)

    @property
    def without_validation(self) -> str:
        """What follows for a class without validation polygons; "" where nothing does, as all polygons are learned."""
        if self.refit:
            return ""
        if self.context.enabled and self.context.patience:
            return "neither early stopping nor the temperature of the confidence looks at it"
        return "the temperature of the confidence is fitted without it"

    @property
    def of_classes(self) -> tuple[str, ...]:
        """Keys that a continuous target has nothing for, and that were set otherwise than by default."""
        plain, off = type(self)(), ("experts.enabled",) * (not self.experts.enabled)
        off += ("pixels.enabled",) * (not self.pixels.enabled) + ("head",) * (self.head != plain.head)
        # A pretrained encoder takes part as it is, with the share that is given or found.
        kept = {"enabled", "weights", "share", *(("frozen",) if self.context.frozen else ())}
        own, default = (one.context.model_dump(exclude=kept) for one in (self, plain))
        return (*off, *(f"context.{name}" for name, value in own.items() if value != default[name]))

    @property
    def keeps_encoder(self) -> bool:
        """Whether a pretrained encoder stays as it is."""
        frozen = self.context.frozen
        return self.head == "chip" and self.context.frozen_first if frozen is None else frozen

    @property
    def takes_no_steps(self) -> bool:
        """Whether the network with context, where weights fit, is a kept encoder under a linear discriminant."""
        return self.keeps_encoder and self.context.frozen_first

    @property
    def unjudged(self) -> bool:
        """Whether pretrained weights are named, and used although without experts nothing judges them."""
        return not self.experts.enabled and self.context.weights not in {NO_WEIGHTS, AUTO}

    @property
    def can_drop_encoder(self) -> bool:
        """Whether a model without a pretrained encoder is one that was asked for too: held-out polygons decide."""
        return self.experts.enabled and self.pixels.enabled and self.context.share is None

    def asks_encoder(self, polygons: int) -> bool:
        """Whether a pretrained encoder that fits the scene learns from so many polygons, judged by them or not."""
        context = self.context
        judged = self.experts.enabled and context.share is None and polygons >= ENOUGH_POLYGONS
        return context.frozen_first and (judged or bool(context.share) or self.unjudged or not self.pixels.enabled)

    @property
    def resumable(self) -> dict[str, object]:
        """All that decides what is learned, JSON-ready; a run may be resumed with another limit or other devices."""
        context = {"devices", "nodes"}
        return self.model_dump(mode="json", exclude={"time_limit_s": True, "context": context})

    def describe(self, polygons: int, *, what: str = "polygons", encoder: str = "", why_not: str = "") -> str:
        """What will be trained on so many polygons, in one line; ``what`` they are called.

        Where it is known which pretrained ``encoder`` the scenes get, or why none, that is said.
        """
        soft = f", soft labels for {self.experts.soft_pixels:,}" if self.head == "unet" else ""
        known = f"experts ({self.experts.trees} trees each{soft})"
        parts = [known if self.experts.enabled else "no experts (labels alone)"]
        if self.pixels.enabled:
            of = "pixels" if self.head == "unet" else "chip statistics"
            parts.append(f"a network of {of} ({self.pixels.steps} steps)")
        parts.append(self._describe_context(polygons, what=what, encoder=encoder, why_not=why_not))
        return f"trained on {polygons} {what}: {'; '.join(parts)}; at most {self.time_limit_s:.0f} s"

    def describe_values(self, samples: int, *, encoder: str = "", why_not: str = "") -> str:
        """What will be trained on so many samples of a continuous target, in one line; see :meth:`describe`."""
        experts = f"experts ({self.experts.trees} trees each)"
        network = f"a network of pixels ({self.pixels.steps} steps)"
        context = self.context
        if not context.frozen_first:
            encoder = "no pretrained encoder"
        elif why_not:
            encoder = f"no pretrained encoder: {NO_FIT} ({why_not})"
        elif context.share is None and samples < ENOUGH_POLYGONS:
            encoder = f"no pretrained encoder (fewer than {ENOUGH_POLYGONS} samples cannot judge it)"
        else:
            share = "as held-out samples say" if context.share is None else f"{context.share:.2f}"
            start = "pretrained weights at hand" if context.weights == AUTO else Path(context.weights).name
            named = f"{encoder}, frozen" if encoder else f"a frozen encoder from {start}"
            encoder = f"{named} (ridge regression, share {share})"
        return f"trained on {samples} samples: {experts}; {network}; {encoder}; at most {self.time_limit_s:.0f} s"

    def _describe_context(self, polygons: int, *, what: str, encoder: str, why_not: str) -> str:
        context = self.context
        if not context.enabled:
            return "no network with context"
        if context.frozen_first and why_not:
            return f"no network with context: {NO_FIT} ({why_not})"
        start = {NO_WEIGHTS: "random weights", AUTO: "pretrained weights at hand"}.get(context.weights)
        name = "an encoder" if context.frozen_first else context.architecture
        kept = ", frozen" if self.keeps_encoder else ""
        steps = "linear discriminant" if self.takes_no_steps else f"{context.steps} steps"
        if not self.pixels.enabled:
            share = "alone"
        elif context.share is not None:
            share = f"share {context.share:.2f}"
        elif not context.frozen_first or self.unjudged:
            share = f"share {UNJUDGED_SHARE:.2f}"
        elif not self.experts.enabled:
            return "no network with context (without experts nothing judges it)"
        elif polygons < ENOUGH_POLYGONS:
            return f"no network with context (fewer than {ENOUGH_POLYGONS} {what} cannot judge it)"
        else:
            share = f"share as held-out {what} say"
        start = start or Path(context.weights).name
        named = f"an encoder, {encoder}" if encoder else f"{name} from {start}"
        return f"{named}{kept} ({steps}, {share})"


class PretrainSettings(Settings):
    """Self-supervised pretraining of an encoder on scenes without labels. Nothing here was tuned."""

    encoder: Encoder = Field("resnet18", description="Architecture of the encoder.")
    steps: int = Field(1000, ge=1, description="Batches.")
    # At the last stage a chip is one pixel or more, and a batch norm needs more than one value.
    batch: int = Field(16, ge=2, description="Chips in a batch.")
    chip_px: int = Field(64, ge=32, description="Side of a chip in pixels.")
    chips: int = Field(1000, ge=1, description="Most chips that are held in memory, over all scenes.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate (one cycle, AdamW).")
    band_share: Fraction = Field(0.3, description="Chance of a band to be taken away from a chip.")
    square_share: Fraction = Field(0.25, description="Chance of a square to be taken away in all bands.")
    square_px: int = Field(8, ge=1, description="Side of a square in pixels.")
    time_limit_s: float = Field(1800.0, gt=0, description="Stops after this many seconds and keeps what it has.")
    seed: int = Field(0, ge=0, description="Of chips, masks and first weights.")


def learned_polygons(split: Split, settings: TrainingSettings) -> NDArray[np.int32]:
    """Ids of the polygons that networks and forest learn from, int32, rising."""
    import numpy as np

    return np.flatnonzero(np.isin(split.part, settings.learned_parts)).astype(np.int32)
