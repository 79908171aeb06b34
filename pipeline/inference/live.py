"""Bytes of tensors that are alive while a network runs, counted: exact for any architecture.

(Tensors without data would do: torch's meta device takes 100 MB and a second to import.)
"""

from __future__ import annotations

import copy
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from pipeline.inference.fast import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Adds up the storages that are alive, and remembers the peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def ignore(self, tensor: torch.Tensor) -> None:
        """Do not count a tensor's storage."""
        self._seen.add(tensor.untyped_storage()._cdata)  # noqa: SLF001 - as in _count

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's compiler, which it would import here to be kept away, is not used."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in tree_flatten(out)[0]:
            if isinstance(item, torch.Tensor):
                self._count(item.untyped_storage())
        self.peak = max(self.peak, self.live)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # noqa: SLF001 - the storage's identity; data_ptr is 0 for an empty one
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += storage.nbytes()
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def activation_bytes(network: nn.Module, *, bands: int, side_px: int, dtype: torch.dtype) -> int:
    """Peak bytes of activations of one forward pass on [1, bands, side_px, side_px], weights not counted.

    The input, as the network takes it, does not count: it is a window's.
    """
    short = copy.deepcopy(network).to(dtype).eval()
    with torch.inference_mode():
        chips = layout_of(short, dtype).empty(bands, side_px, side_px).zero_()[None]
        live = _LiveBytes()
        live.ignore(chips)
        with live:
            short(chips)
    return live.peak
