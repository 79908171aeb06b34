"""Pretrained weights into a network, its stem matched by band, and how fast each part of it may then learn.

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

import re
import warnings
from typing import TYPE_CHECKING

import torch

from pipeline.bands import centre_um
from pipeline.errors import ModelError, ModelWarning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.model.encoder import Encoder
    from pipeline.model.preprocess import Preprocess
    from pipeline.model.weights import EncoderWeights

# Beyond this distance two bands see different things of a surface (SWIR 1.6 and NIR 0.86 um; thermal and optical).
NEAREST_LIMIT_UM = 0.7
# The running mean after each kind of stem.
_NORMS = {"conv1.weight": "bn1.running_mean", "_conv_stem.weight": "_bn0.running_mean"}


def put_weights(
    encoder: Encoder, weights: EncoderWeights, *, preprocess: Preprocess, units: Sequence[str] = (), branch: int = 0
) -> None:
    """Put pretrained weights into an encoder, the stem matched by band and by scaling.

    Where a band has another unit than the weights' scaling, that scaling says nothing about its values: the stem meets
    the band standardised, as it would without one, and a ModelWarning says so.

    Args:
        encoder: Of the weights' architecture.
        weights: The weights.
        preprocess: How its input is standardised.
        units: Unit of each of its bands; () or "" where it is not known, and then taken for that of the weights.
        branch: Of an encoder with branches, the one that they are for.

    Raises:
        ModelError: a tensor is missing or of another shape.
    """
    if weights.bands_at_once:  # trained with bands left out: it takes those it knows
        weights = weights.of_bands([name for name in weights.bands if name in preprocess.bands], given=preprocess.bands)
    tensors = dict(weights.tensors)
    stem = tensors[weights.stem_name].float()
    same = tuple(weights.bands) == preprocess.bands
    matched = stem if same else match_stem(stem, known=weights.bands, wanted=preprocess.bands)
    norm = _NORMS[weights.stem_name]
    if weights.scaling is not None:
        mean, std = _scaling_for(weights, preprocess, units or ("",) * len(preprocess.bands))
        matched, constant = rescale_stem(matched, preprocess=preprocess, mean=mean, std=std)
        tensors[norm] = tensors[norm].float() - constant
    tensors[weights.stem_name] = matched
    load_into(encoder, tensors, name=weights.name, branch=branch)


def load_into(encoder: Encoder, tensors: Mapping[str, torch.Tensor], *, name: str, branch: int = 0) -> None:
    """Load tensors under their published names into an encoder of the same bands; those of deeper stages are left out.

    Raises:
        ModelError: a tensor is missing or of another shape.
    """
    state = {}
    for own, old in encoder.state_dict().items():
        theirs = re.sub(rf"^stages\.\d+\.(parts\.{branch}\.)?", "", own)
        if theirs.startswith("parts."):  # of another branch
            state[own] = old
            continue
        if theirs not in tensors and theirs.endswith("num_batches_tracked"):  # older than that counter
            state[own] = old
            continue
        if theirs not in tensors or tensors[theirs].shape != old.shape:
            raise ModelError(
                f"weights {name} do not fit the encoder: tensor {theirs}",
                got=tuple(tensors[theirs].shape) if theirs in tensors else "nothing",
                expected=tuple(old.shape),
                fix="choose weights of this architecture",
            )
        state[own] = tensors[theirs]
    encoder.load_state_dict(state)


def _scaling_for(
    weights: EncoderWeights, preprocess: Preprocess, units: Sequence[str]
) -> tuple[list[float], list[float]]:
    """The weights' scaling for each channel of the network; of channels they do not know in this unit, our own."""
    means, stds = weights.scaling or ((), ())
    theirs = weights.units or ("",) * len(weights.bands)
    mean, std = list(preprocess.mean), list(preprocess.std)
    other = []
    for i, (band, unit) in enumerate(zip(preprocess.bands, units, strict=True)):
        near = nearest_band(band, weights.bands)
        if near is None:
            continue
        at = weights.bands.index(near)
        if unit and theirs[at] and unit != theirs[at]:
            other.append(f"{band} ({unit}, not {theirs[at]})")
        else:
            mean[i], std[i] = means[at], stds[at]
    if other:
        warnings.warn(
            f"weights {weights.name} were trained on values of another unit than {', '.join(other)}: their own scaling "
            "is not used there, and they fit less well; set scale and offset of the scene",
            ModelWarning,
            stacklevel=3,
        )
    return mean, std


def match_stem(weight: torch.Tensor, *, known: Sequence[str], wanted: Sequence[str]) -> torch.Tensor:
    """Filters for ``wanted`` bands.

    Args:
        weight: float [filter, band, row, col], bands in the order of ``known``.
        known: Common names of the bands that the weights were trained on.
        wanted: Common names of the bands of the new network.

    Returns:
        float [filter, band, row, col] with the ``wanted`` bands.
    """
    chosen = [nearest_band(name, known) for name in wanted]
    mean = weight.mean(dim=1)
    filters = torch.stack([mean if name is None else weight[:, list(known).index(name)] for name in chosen], dim=1)
    if sorted(name or "" for name in chosen) != sorted(known):
        power = filters.pow(2).sum()
        filters = filters * torch.where(power > 0, weight.pow(2).sum() / power, torch.ones_like(power)).sqrt()
    return filters


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
    *, preprocess: Preprocess, mean: Sequence[float], std: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
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
