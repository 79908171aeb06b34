"""The stem matched by band: a pretrained first convolution for bands in another order, fewer, or more.

A published benchmark shows what a stem matched by position costs: a 13-band MoCo ResNet-50 falls below plain image
statistics on data that lack some of its bands. So filters are matched by common name:

* a band the weights know gets its own filters;
* another optical band gets those of the band nearest in wavelength, as neighbours in the spectrum correlate;
* any other layer (radar, elevation) gets the mean of all filters;
* an index computed from bands starts at zero: it adds nothing until training finds it useful.

Then all filters are multiplied by one factor that restores the sum of squares over the stem, which for standardised,
uncorrelated bands is the variance of its output (the argument of He et al. 2015, eq. 5): dropped bands would otherwise
leave the first batch norm with statistics of another network. Bands matched one to one give a factor of exactly 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.bands import centre_um

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model.preprocess import Preprocess

# Beyond this distance two bands see different things of a surface (SWIR 1.6 and NIR 0.86 um; thermal and optical).
NEAREST_LIMIT_UM = 0.7


def match_stem(weight: torch.Tensor, *, known: Sequence[str], wanted: Sequence[str], indices: int = 0) -> torch.Tensor:
    """Filters for ``wanted`` bands and then ``indices`` further channels.

    Args:
        weight: float [filter, band, row, col], bands in the order of ``known``.
        known: Common names of the bands that the weights were trained on.
        wanted: Common names of the bands of the new network.
        indices: Channels after the bands that start at zero.

    Returns:
        float [filter, band, row, col] with ``len(wanted) + indices`` bands.
    """
    chosen = [nearest_band(name, known) for name in wanted]
    mean = weight.mean(dim=1)
    filters = torch.stack([mean if name is None else weight[:, list(known).index(name)] for name in chosen], dim=1)
    if sorted(name or "" for name in chosen) != sorted(known):
        power = filters.pow(2).sum()
        filters = filters * torch.where(power > 0, weight.pow(2).sum() / power, torch.ones_like(power)).sqrt()
    blank = weight.new_zeros((weight.shape[0], indices, *weight.shape[2:]))
    return torch.cat([filters, blank], dim=1)


def nearest_band(name: str, known: Sequence[str]) -> str | None:
    """The band of ``known`` that a band starts from: itself, or the nearest in wavelength, or None.

    >>> nearest_band("nir", ["red", "nir08", "swir16"]), nearest_band("vv", ["red"])
    ('nir08', None)
    """
    if name in known:
        return name
    centre = centre_um(name)
    distances = {other: abs(at - centre) for other in known if centre is not None and (at := centre_um(other))}
    best = min(distances, key=lambda other: distances[other], default=None)
    return best if best is not None and distances[best] <= NEAREST_LIMIT_UM else None


def rescale_stem(
    weight: torch.Tensor,
    *,
    preprocess: Preprocess,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same stem for input standardised by ``preprocess`` instead of the weights' own scaling.

    With z = (x - m) / s from preprocess and u = (x - mean) / std as the weights expect,
    u = z s / std + (m - mean) / std: a factor per band and a constant per filter.

    Args:
        weight: float [filter, band, row, col] for u.
        preprocess: The scaling of the network's input.
        mean: Mean of the weights' own scaling for each channel, in the unit of ``preprocess``.
        std: Deviation of the weights' own scaling for each channel.

    Returns:
        The filters for z, and the constant float [filter] that each filter's output lacks (away from the edge), to be
        taken off the running mean of the batch norm that follows.
    """
    ours_mean, ours_std = weight.new_tensor(preprocess.mean), weight.new_tensor(preprocess.std)
    theirs_mean, theirs_std = weight.new_tensor(mean), weight.new_tensor(std)
    shift = (ours_mean - theirs_mean) / theirs_std
    constant = (weight.sum(dim=(2, 3)) * shift).sum(dim=1)
    return weight * (ours_std / theirs_std)[None, :, None, None], constant
