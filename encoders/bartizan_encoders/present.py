"""PresentWeights: the hash of a module's weights, computed anew only when one of them may have changed."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing import reductions

from bartizan_encoders.weights import state_of, weights_hash

_WeakMemory: Any = reductions.StorageWeakRef
_PROBED = 16
"""Numbers of each tensor that are looked at: an optimiser's fused step leaves no other trace than the numbers."""


class PresentWeights:
    """Sees tensors replaced, given other data, moved, cast, or written in place under torch's own count of versions;
    and, by a few numbers of each, most of what is written behind it. A copy or a pickle of it starts anew."""

    def __init__(self) -> None:
        self._seen: tuple[_Seen, ...] = ()
        self._probe = b""
        self._hash: str | None = None

    def hash_of(self, module: nn.Module) -> str:
        """The hash of the weights as they are."""
        if self._hash is None or not self._unchanged(module):
            self.know(module, weights_hash(state_of(module)))
        assert self._hash is not None
        return self._hash

    def know(self, module: nn.Module, known: str) -> None:
        """Take a hash for that of the weights as they are."""
        tensors = list(_tensors(module))
        countable = not any(tensor.is_inference() for _, tensor in tensors)
        self._seen = tuple(_Seen.of(name, tensor) for name, tensor in tensors) if countable else ()
        self._probe = _probe(module)
        self._hash = known

    def forget(self) -> None:
        """Compute the hash anew when it is asked for next."""
        self._hash = None

    def _unchanged(self, module: nn.Module) -> bool:
        tensors = list(_tensors(module))
        return (
            len(tensors) == len(self._seen)
            and all(seen.still(name, tensor) for seen, (name, tensor) in zip(self._seen, tensors, strict=True))
            and _probe(module) == self._probe
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """One tensor as it was. The weak references keep its address and its memory's from being taken for another's."""

    name: str
    tensor: "weakref.ref[Tensor]"
    memory: Any
    version: int
    form: tuple[Any, ...]

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Self:
        return cls(name, weakref.ref(tensor), _WeakMemory(tensor.untyped_storage()), tensor._version, _form(tensor))

    def still(self, name: str, tensor: Tensor) -> bool:
        return (
            self.name == name
            and self.tensor() is tensor
            and not tensor.is_inference()
            and not self.memory.expired()
            and self.memory.cdata == tensor.untyped_storage()._cdata
            and self.version == tensor._version
            and self.form == _form(tensor)
        )


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.device, tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _probe(module: nn.Module) -> bytes:
    """A few numbers of each tensor, the first and the last among them, in one transfer."""
    found = []
    with torch.no_grad():
        for _, tensor in module.named_parameters():
            flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach().flatten()[:0]
            step = max(1, flat.numel() // _PROBED)
            found += [flat[::step][:_PROBED].double(), flat[-1:].double()]
        if not found:
            return b""
        return np.ascontiguousarray(torch.cat(found).cpu().numpy()).tobytes()
