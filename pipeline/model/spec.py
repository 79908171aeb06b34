"""NetworkSpec: what a network is, as plain data; written into the model file, read without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

Encoder = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "efficientnet_b4", "none"]
Head = Literal["unet", "chip"]
ENCODERS: tuple[str, ...] = get_args(Encoder)
HEADS: tuple[str, ...] = get_args(Head)
STAGES = 5
# Sides in pixels of the windows whose means are a pixel's surroundings, and how far the widest reaches from it.
SURROUNDINGS_PX = (3, 5, 9)
SURROUNDINGS_REACH_PX = max(SURROUNDINGS_PX) // 2
# Smaller chips hold too few of the windows of pipeline.model.surroundings.
LEAST_CHIP_PX = 8


@dataclass(frozen=True)
class NetworkSpec:
    """The architecture of one network.

    There is no choice of normalisation: batch norm's statistics are constants when mapping, so that a pixel's class
    does not depend on the tile it is computed in (group, layer and instance norm would make it so), and they fold into
    the convolutions.
    """

    bands_in: int  # Channels of the standardised input
    classes: int  # Number of classes, the channels of the logits
    # A torchvision architecture (EfficientNet-B4 up to stride 16, its gates folded into its weights), or "none": the
    # spectral path alone, a network of single pixels or of small neighbourhoods
    encoder: Encoder = "resnet18"
    head: Head = "unet"  # "unet" gives logits per pixel; "chip" one class per chip
    # Encoder stages used, 2..5. A ResNet's stages are its stem and its four layers; an EfficientNet's end where its
    # stride doubles, at 2, 4, 8, 16, and are 4 at most
    depth: int = 5
    # Stride of a ResNet's first layer group: 4 as in torchvision (convolution 2, pooling 2), 2 (no pooling) or 1
    # (neither). Only ResNets have one
    stem_stride: int = 4
    # Channels of the decoder's steps, coarse to fine; each step doubles the resolution. Of a longer tuple than there
    # are steps the last (finest) entries are used
    decoder_channels: tuple[int, ...] = (128, 64, 64, 32, 32)
    decoder_kernel: int = 3  # Kernel of the decoder's convolutions; odd
    fuse_kernel: int = 1  # Kernel of the step at full resolution, where context and spectral path meet; 1 or 3
    spectral_channels: int = 64  # Channels of the full-resolution path on the input itself; 0 for none
    # Kernels of its convolutions, in order; (1, 1) sees the pixel's own spectrum only
    spectral_kernels: tuple[int, ...] = (1, 1)
    # The spectral path also sees the bands' means over 3, 5 and 9 pixels and deviation over 3
    surroundings: bool = False
    # Head "chip": statistics of the chip (``pipeline.model.surroundings``); without encoder convolutions of these
    # instead of means of the path over the chip, one place per chip; with ``moments`` beside them
    statistics: bool = False
    # Head "chip" with an encoder: mean, deviation and roughness over the chip of the features at every stride, instead
    # of the mean of the last; averaged over so many views of it (``pipeline.model.network.view_moments``), 0 for none.
    # Older files have false or true, for 0 or 1
    moments: int = 0
    # Head "unet" with an encoder: no decoder; logits are linear in the encoder's features at every stride, interpolated
    # to the pixel, and in the bands or their surroundings (``pipeline.model.decoder.Columns``)
    columns: bool = False
    branches: int = 1  # Encoders of this architecture side by side, each with its own weights
    # Probability of dropping a whole feature channel before the head (and after the encoder), in training
    dropout: float = 0.1
    chip_px: int = 64  # Head "chip": side of the chips it is trained on, in pixels
    chip_stride_px: int = 16  # Head "chip": side of the cells that get one class in a map

    def __post_init__(self) -> None:
        """Refuse networks that cannot be built; an EfficientNet has at most four stages."""
        fewer = (self.encoder, self.depth) == ("efficientnet_b4", STAGES)
        object.__setattr__(self, "depth", self.depth - fewer)
        object.__setattr__(self, "decoder_channels", tuple(self.decoder_channels))
        object.__setattr__(self, "spectral_kernels", tuple(self.spectral_kernels))
        _expect("encoder", self.encoder, one_of=ENCODERS)
        _expect("head", self.head, one_of=HEADS)
        _expect("stem_stride", self.stem_stride, one_of=(1, 2, 4))
        _expect("depth", self.depth, one_of=tuple(range(2, STAGES + 1)))
        _expect("fuse_kernel", self.fuse_kernel, one_of=(1, 3, 5))
        _expect("decoder_kernel", self.decoder_kernel, one_of=(1, 3, 5))
        for name in ("bands_in", "classes", "branches", "chip_px", "chip_stride_px"):
            if getattr(self, name) < 1:
                raise ModelError(f"network setting {name}", got=getattr(self, name), expected="at least 1")
        if self.chip_stride_px > self.chip_px or (self.chip_px - self.chip_stride_px) % 2:
            raise ModelError(
                "network settings chip_px and chip_stride_px",
                got=f"{self.chip_px} and {self.chip_stride_px}",
                expected="a stride not above the chip, differing by an even number of pixels",
            )
        if not 0 <= self.dropout < 1:
            raise ModelError("network setting dropout", got=self.dropout, expected="0 to below 1")
        if any(kernel not in {1, 3, 5, 7} for kernel in self.spectral_kernels):
            raise ModelError(
                "network setting spectral_kernels", got=self.spectral_kernels, expected="1, 3, 5 or 7 each"
            )
        if self.has_spectral and not self.spectral_kernels:
            raise ModelError("network setting spectral_kernels is empty", fix="give one kernel or spectral_channels: 0")
        if self.encoder == "none" and not self.has_spectral:
            raise ModelError("a network without encoder and without spectral path", fix="set spectral_channels")
        if self.statistics:
            self._check_statistics()
        self._check_moments()
        if any(width < 1 for width in self.decoder_channels) or not self.decoder_channels:
            raise ModelError("network setting decoder_channels", got=self.decoder_channels, expected="positive widths")

    def _check_moments(self) -> None:
        object.__setattr__(self, "moments", int(self.moments))
        _expect("moments", self.moments, one_of=(0, 1, 2))
        if self.moments and (self.head != "chip" or self.encoder == "none"):
            raise ModelError("moments are for head chip with an encoder", got=f"{self.head}, {self.encoder}")
        if self.columns and (self.head != "unet" or self.encoder == "none" or not self.has_spectral):
            raise ModelError(
                "columns are for head unet with an encoder and a spectral path", got=f"{self.head}, {self.encoder}"
            )

    def _check_statistics(self) -> None:
        alone = self.encoder == "none" and not self.surroundings and set(self.spectral_kernels) == {1}
        if self.head != "chip" or not (alone or (self.moments and not self.has_spectral)):
            raise ModelError(
                "statistics of chips are for head chip, with encoder none, kernels of 1 and no surroundings, or beside "
                "moments without a spectral path",
                got=f"head {self.head}, encoder {self.encoder}, kernels {self.spectral_kernels}",
            )
        if self.chip_px < LEAST_CHIP_PX:
            raise ModelError("chips too small for statistics", got=self.chip_px, expected=f"at least {LEAST_CHIP_PX}")

    @property
    def has_spectral(self) -> bool:
        """Whether the full-resolution path on the input exists."""
        return self.spectral_channels > 0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @classmethod
    def from_json(cls, items: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`; a key that this version does not know is refused.

        Raises:
            ModelError: unknown or missing keys, or values that no network has.
        """
        unknown = sorted(set(items) - {item.name for item in fields(cls)})
        if unknown:
            raise ModelError(f"network setting {', '.join(unknown)} is not known", fix="update landcover-pipeline")
        plain = {key: tuple(value) if isinstance(value, list) else value for key, value in items.items()}
        try:
            return cls(**cast("dict[str, Any]", plain))
        except TypeError as err:
            raise ModelError("network settings are incomplete or of a wrong type", got=err) from err


def _expect(name: str, value: object, *, one_of: tuple[object, ...]) -> None:
    if value not in one_of:
        raise ModelError(f"network setting {name}", got=value, expected="one of " + ", ".join(map(str, one_of)))
