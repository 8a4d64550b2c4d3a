"""State dicts as bytes: their size, what can be loaded again, and their digest."""

from __future__ import annotations

import hashlib
import io
from threading import Thread

import pytest
import torch

from repro.networks import SqueezeNetSpec
from repro.training.models import build, saved, state_bytes, weights_digest


def squeezenet(**settings):
    return SqueezeNetSpec(name="squeezenet", **settings)


def seeded(spec, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)


def test_size_is_that_of_torch_save_whatever_the_layout():
    state = seeded(squeezenet(batch_norm="all")).state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    assert state_bytes(state, legacy=False) == buffer.tell() == len(saved(state))
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    assert state_bytes(state, legacy=True) == pytest.approx(legacy.tell(), abs=2 * 6 * len(state))  # addresses vary
    flat = torch.zeros(sum(tensor.numel() for tensor in state.values()))  # as an optimizer may keep them
    moved, start = state.copy(), 0
    moved._metadata = state._metadata
    for name, tensor in state.items():
        if tensor.dim() == 4:
            moved[name] = tensor.contiguous(memory_format=torch.channels_last)
        elif tensor.is_floating_point():
            moved[name] = flat[start : start + len(tensor)].copy_(tensor)
            start += len(tensor)
    for form in (False, True):
        assert state_bytes(moved, legacy=form) == state_bytes(state, legacy=form)
    assert saved(moved) == saved(state)


def test_the_legacy_size_does_not_depend_on_addresses():
    state, sizes = seeded(squeezenet(batch_norm="all")).state_dict(), []
    sizes.append(state_bytes(state, legacy=True))
    elsewhere = Thread(target=lambda: sizes.append(state_bytes(state, legacy=True)))  # where memory has other addresses
    elsewhere.start()
    elsewhere.join()
    assert sizes[0] == sizes[1]


def test_saved_weights_load_again():
    spec = squeezenet(batch_norm="all", residual="complex")
    module, other = seeded(spec, 0), seeded(spec, 1)
    other.load_state_dict(torch.load(io.BytesIO(saved(module.state_dict())), weights_only=True))
    assert weights_digest(other.state_dict()) == weights_digest(module.state_dict())


def test_the_digest_is_of_names_shapes_types_and_values():
    weights = torch.arange(6.0).reshape(2, 3)
    state = {"a": weights, "b": torch.tensor(1)}
    others = [
        {"a": weights, "c": torch.tensor(1)},
        {"a": weights.reshape(3, 2), "b": torch.tensor(1)},
        {"a": weights.double(), "b": torch.tensor(1)},
        {"a": weights + 1e-7, "b": torch.tensor(1)},
        {"a": weights, "b": torch.tensor(1, dtype=torch.int32)},
    ]
    digests = {weights_digest(other) for other in [state, *others]}
    assert len(digests) == len(others) + 1
    transposed = {"b": torch.tensor(1), "a": weights.t().contiguous().t()}
    assert weights_digest(transposed) == weights_digest(state)
    assert weights_digest({"a": torch.zeros(2)}) == hashlib.sha256(b"a torch.float32 (2,)\n" + bytes(8)).hexdigest()
