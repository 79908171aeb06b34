"""Preprocess: physical values -> the network's input; one function for training and for mapping.

Each band is standardised by the mean and deviation of the valid training pixels, clipped, and set to 0 (its mean) where
not valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Preprocess:
    """How values of ``bands`` become the network's input channels."""

    bands: tuple[str, ...]  # Names in order
    mean: tuple[float, ...]  # Mean of each band, in its unit
    std: tuple[float, ...]  # Standard deviation of each band; positive
    # Standardised values are held within plus and minus this, so that a glint or a cloud edge does not dominate a
    # neighbourhood; 0 for no limit
    clip: float = 8.0

    def __post_init__(self) -> None:
        """Refuse numbers that do not fit the bands."""
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ModelError(
                "means and deviations do not fit the bands",
                got=f"{len(self.mean)} and {len(self.std)}",
                expected=f"{self.channels} each",
            )
        if not all(np.isfinite((*self.mean, *self.std))) or any(value <= 0 for value in self.std):
            raise ModelError("means and deviations that are not finite or not positive", got=(self.mean, self.std))

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.bands)

    @classmethod
    def from_statistics(
        cls,
        *, bands: Sequence[str], mean: Sequence[float] | NDArray[Any], std: Sequence[float] | NDArray[Any],
        clip: float = 8.0,
    ) -> Self:  # fmt: skip
        """From means and deviations per band; a deviation of 0 becomes 1."""
        return cls(tuple(bands), tuple(map(float, mean)), tuple(float(x) if x > 0 else 1.0 for x in std), clip)

    @cached_property
    def _affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Gain and bias float32 [channel, 1, 1]: standardised = value x gain + bias."""
        import torch

        gain = 1.0 / np.asarray(self.std, dtype=np.float64)
        bias = -np.asarray(self.mean, dtype=np.float64) * gain
        gain_t, bias_t = (torch.from_numpy(part.astype(np.float32))[:, None, None] for part in (gain, bias))
        return gain_t, bias_t

    def __call__(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> torch.Tensor:
        """float32 [channel, row, col] of ``values`` float32 [band, row, col]; 0 where ``valid`` [row, col] is False."""
        import torch

        return self.apply(torch.from_numpy(values), torch.from_numpy(valid))

    def apply(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The same on tensors: values float32 [..., band, row, col], valid bool [..., row, col]; inputs are kept."""
        if values.shape[-3] != len(self.bands):
            raise ModelError("values with other bands than the model's", got=values.shape[-3], expected=len(self.bands))
        out = self.standardise(values)
        if not bool(valid.all()):
            out.masked_fill_(~valid.unsqueeze(-3), 0.0)
        return out

    def standardise(self, values: torch.Tensor) -> torch.Tensor:
        """Channels float32 [..., channel, row, col] of ``values`` [..., band, row, col], validity aside."""
        import torch

        gain, bias = (part.to(values.device) for part in self._affine)
        out = torch.addcmul(bias, values, gain)
        return out.clamp_(-self.clip, self.clip) if self.clip else out

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "bands": list(self.bands),
            "mean": list(self.mean),
            "std": list(self.std),
            "clip": self.clip,
            "indices": [],
        }

    @classmethod
    def from_json(cls, items: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`; indices of bands, which are bands of the scene now, are refused."""
        try:
            mean, std = (tuple(map(float, items[name])) for name in ("mean", "std"))
            if items["indices"]:
                fix = "train it again: inputs.indices has them"
                raise ModelError("the model computes indices itself, which models no longer do", fix=fix)
            return cls(tuple(items["bands"]), mean, std, float(items["clip"]))
        except (KeyError, TypeError, ValueError) as err:
            raise ModelError("scaling of the model file cannot be read", got=repr(err)) from err
