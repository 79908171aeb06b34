"""Pretrained weights into a network, and how fast each part of it may then learn."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError, ModelWarning
from pipeline.model.stem import match_stem, nearest_band, rescale_stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from pipeline.model.network import Network
    from pipeline.model.preprocess import Preprocess
    from pipeline.model.weights import EncoderWeights


def put_weights(
    network: Network, weights: EncoderWeights, *, preprocess: Preprocess, units: Sequence[str] = ()
) -> None:
    """Put pretrained weights into a network's encoder, the stem matched by band and by scaling.

    Where a band has another unit than the weights' scaling, that scaling says nothing about its values: the stem meets
    the band standardised, as it would without one, and a ModelWarning says so.

    Args:
        network: With an encoder.
        weights: Of its architecture.
        preprocess: How the network's input is standardised.
        units: Unit of each of its bands; () or "" where it is not known, and then taken for that of the weights.

    Raises:
        ModelError: the network has no encoder, or a tensor is missing or of another shape.
    """
    encoder = network.encoder
    if encoder is None:
        raise ModelError(f"weights {weights.name} for a network without encoder", fix="set weights: none")
    tensors = dict(weights.tensors)
    stem = tensors[weights.stem_name].float()
    if tuple(weights.bands) == (*preprocess.bands, *(f"index {a} {b}" for a, b in preprocess.indices)):
        matched = stem
    else:
        matched = match_stem(stem, known=weights.bands, wanted=preprocess.bands, indices=len(preprocess.indices))
    norm = "bn1.running_mean" if weights.stem_name == "conv1.weight" else "features.1.running_mean"
    if weights.scaling is not None:
        mean, std = _scaling_for(weights, preprocess, units or ("",) * len(preprocess.bands))
        matched, constant = rescale_stem(matched, preprocess=preprocess, mean=mean, std=std)
        tensors[norm] = tensors[norm].float() - constant
    tensors[weights.stem_name] = matched
    vgg = weights.stem_name.startswith("features")
    state = {}
    for name, old in encoder.state_dict().items():
        theirs = re.sub(r"^stages\.\d+\.", "features." if vgg else "", name)
        if theirs not in tensors and theirs.endswith("num_batches_tracked"):  # older than that counter
            state[name] = old
            continue
        if theirs not in tensors or tensors[theirs].shape != old.shape:
            raise ModelError(
                f"weights {weights.name} do not fit encoder {network.spec.encoder}: tensor {theirs}",
                got=tuple(tensors[theirs].shape) if theirs in tensors else "nothing",
                expected=tuple(old.shape),
                fix="choose weights of this architecture",
            )
        state[name] = tensors[theirs]
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


def freeze_encoder(network: Network, *, frozen: bool = True) -> None:
    """Hold the encoder's weights and batch-norm statistics fixed while the rest learns, or let them go again."""
    if network.encoder is not None:
        network.encoder.frozen = frozen
        network.encoder.requires_grad_(requires_grad=not frozen)
        network.encoder.train(mode=network.training)


def parameter_groups(
    network: Network, *, lr: float, layer_decay: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser: each encoder stage learns ``layer_decay`` times as fast as the one after it.

    Decoder, spectral path and head learn at ``lr``, the last encoder stage at ``lr * layer_decay``, the stem slowest
    (discriminative fine-tuning, Howard & Ruder 2018). Biases and batch norms get no weight decay.
    """
    stages = list(network.encoder.stages) if network.encoder is not None else []
    parts: list[tuple[str, list[nn.Module], float]] = [
        (f"encoder {number}", [stage], lr * layer_decay ** (len(stages) - number))
        for number, stage in enumerate(stages)
    ]
    rest: list[nn.Module] = [part for part in (network.spectral, network.decoder, network.head) if part is not None]
    parts.append(("rest", rest, lr))
    groups = []
    for name, modules, rate in parts:
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        for label, decay, chosen in (
            (name, weight_decay, [p for p in parameters if p.ndim > 1]),
            (f"{name} norm", 0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"name": label, "params": chosen, "lr": rate, "weight_decay": decay})
    return groups
