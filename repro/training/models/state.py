"""A state dict as bytes: how large it is on disk, and a digest of what is in it."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor


def saved(state: Mapping[str, Tensor]) -> bytes:
    """The state dict as `torch.save` writes it: the content of model.pt.

    The same weights give the same bytes wherever they lie: tensors are first copied to the CPU, contiguous and with a
    storage of their own, since `torch.save` keeps strides, device and all of a storage that a tensor is part of.

    Args:
        state: what `Module.state_dict` returns; the version numbers it carries beside the tensors are saved too, as
            `torch.save(module.state_dict(), path)` would, and are some thousandths of the size of a small network.
    """
    return _save(_portable(state), legacy=False).getvalue()


def state_bytes(state: Mapping[str, Tensor], legacy: bool) -> int:
    """The length of `saved` in bytes; `legacy` is that in torch's format before 1.6.

    The legacy format names every storage by its address in memory, in decimal and twice over; here an address counts as
    having 14 digits, as one of the heap has on 64-bit Linux, so that the length says something of the weights alone.
    """
    portable = _portable(state)
    length = _save(portable, legacy).tell()
    if legacy:
        length += sum(2 * (14 - len(str(tensor.untyped_storage()._cdata))) for tensor in portable.values())
    return length


def _portable(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    portable = OrderedDict(
        (name, tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)) for name, tensor in state.items()
    )
    if hasattr(state, "_metadata"):
        portable.__dict__["_metadata"] = state._metadata
    return portable


def _save(portable: OrderedDict[str, Tensor], legacy: bool) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(portable, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, type, shape and little-endian bytes of every tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
