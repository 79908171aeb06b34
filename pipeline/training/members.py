"""The networks that are trained: their architectures from the settings, their first weights from the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.model.network import NetworkSpec, build_network
from pipeline.model.transfer import freeze_encoder
from pipeline.model.weights import load_weights
from pipeline.training.settings import LEARNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model.network import Network
    from pipeline.model.preprocess import Preprocess
    from pipeline.training.settings import FitSettings


# Below this many polygons, and from random weights, the network with context only costs time: docs/learning.md.
ENOUGH_FOR_CONTEXT = 100
# Its share at most, and the polygons with which it has half of that.
_MOST, _HALF_WAY = 0.25, 200


def context_share(settings: FitSettings, *, polygons: int) -> float:
    """Share of the network with context in the average of a model that learns from ``polygons``; 0: it is not trained.

    A share that is to be learned is the most there can be until it has been.

    Source: measured, docs/learning.md.
    """
    if settings.encoder == "none":
        return 0.0
    if settings.context_share == LEARNED:
        return _MOST
    if isinstance(settings.context_share, int | float):
        return settings.context_share
    if settings.weights == "none" or polygons < ENOUGH_FOR_CONTEXT:
        return 0.0
    return _MOST * polygons / (polygons + _HALF_WAY)


def member_shares(settings: FitSettings, *, polygons: int) -> tuple[float, ...]:
    """Share of each member in the average: networks of a kind have equal parts of what the kind has.

    Source: Lakshminarayanan et al. (2017), Simple and scalable predictive uncertainty estimation using deep ensembles,
    NeurIPS (equal parts).
    """
    context = context_share(settings, polygons=polygons)
    kinds = (1.0 - context, context) if context else (1.0,)
    return tuple(share / settings.ensemble for share in kinds for _ in range(settings.ensemble))


def network_specs(settings: FitSettings, *, bands_in: int, classes: int, polygons: int) -> list[NetworkSpec]:
    """The networks that are trained, in the order of the model's members.

    Head "unet": ``ensemble`` of single pixels and their surroundings and, where they have a share, as many with
    context. Head "chip": of the chip's statistics and, where they have a share, with an encoder.
    """
    if settings.head == "chip":
        return chip_specs(settings, bands_in=bands_in, classes=classes, polygons=polygons, chip_px=settings.chip_px)
    spectral = NetworkSpec(
        bands_in,
        classes,
        encoder="none",
        spectral_kernels=(1, 1),
        spectral_channels=128,
        surroundings=True,
        dropout=0.0,
    )
    if not context_share(settings, polygons=polygons):
        return [spectral] * settings.ensemble
    context = NetworkSpec(
        bands_in,
        classes,
        encoder=settings.encoder,  # type: ignore[arg-type]
        depth=settings.depth,
        stem_stride=settings.stem_stride,
        spectral_kernels=(3, 1),
        dropout=settings.dropout,
    )
    return [spectral] * settings.ensemble + [context] * settings.ensemble


def chip_specs(settings: FitSettings, *, bands_in: int, classes: int, polygons: int, chip_px: int) -> list[NetworkSpec]:
    """The chip classifiers; in a map, cells of about a quarter of the chip get one class each.

    Raises:
        ModelError: chips too small for statistics.
    """
    stride = max(chip_px // 4, 1)
    stride += (chip_px - stride) % 2
    statistics = NetworkSpec(
        bands_in,
        classes,
        encoder="none",
        head="chip",
        spectral_kernels=(1, 1),
        spectral_channels=128,
        statistics=True,
        dropout=0.0,
        chip_px=chip_px,
        chip_stride_px=stride,
    )
    if not context_share(settings, polygons=polygons):
        return [statistics] * settings.ensemble
    context = NetworkSpec(
        bands_in,
        classes,
        encoder=settings.encoder,  # type: ignore[arg-type]
        head="chip",
        depth=settings.depth,
        stem_stride=settings.stem_stride,
        spectral_kernels=(3, 1),
        dropout=settings.dropout,
        chip_px=chip_px,
        chip_stride_px=stride,
    )
    return [statistics] * settings.ensemble + [context] * settings.ensemble


def build_members(
    settings: FitSettings,
    *,
    bands_in: int,
    classes: int,
    polygons: int,
    preprocess: Preprocess,
    units: Sequence[str] = (),
) -> list[Network]:
    """The networks of :func:`network_specs`, pretrained and frozen as the settings say; ``units`` of each band.

    Raises:
        ModelError: pretrained weights that do not fit.
    """
    specs = network_specs(settings, bands_in=bands_in, classes=classes, polygons=polygons)
    return [
        build_member(spec, number, settings=settings, preprocess=preprocess, units=units)
        for number, spec in enumerate(specs)
    ]


def build_member(
    spec: NetworkSpec, number: int, *, settings: FitSettings, preprocess: Preprocess, units: Sequence[str] = ()
) -> Network:
    """One of them; ``number`` and the seed decide its random weights.

    Raises:
        ModelError: pretrained weights that do not fit.
    """
    torch.manual_seed(settings.seed * 101 + number)
    loaded = None
    if spec.encoder != "none" and settings.weights != "none":
        loaded = load_weights(settings.weights, architecture=spec.encoder, bands=settings.weights_bands)
    network = build_network(spec, weights=loaded, preprocess=preprocess if loaded is not None else None, units=units)
    if settings.frozen and spec.encoder != "none":
        freeze_encoder(network)
    return network
