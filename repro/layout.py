"""What a SqueezeNet's metaparameters come to (Iandola et al. 2016, section 5): its blocks and their filters.

Arithmetic alone, so that a plan refuses what no network can be built of before anything is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import InputError
from repro.networks import SqueezeNetSpec


@dataclass(frozen=True, slots=True)
class FireShape:
    """The filters of one Fire module."""

    squeeze: int
    expand_small: int
    expand_large: int

    @property
    def width(self) -> int:
        """Channels of the module's output."""
        return self.expand_small + self.expand_large


def blocks(spec: SqueezeNetSpec) -> list[tuple[str, FireShape | None]]:
    """What stands between conv1 and the head, by name: Fire modules with their shape, pools with None.

    Raises:
        InputError: a Fire module without filters, or an image that is smaller than a layer needs: one line.
    """
    body: list[tuple[str, FireShape | None]] = [("pool1", None)] if "conv1" in spec.pools else []
    for index in range(spec.fire_modules):
        name = f"fire{index + 2}"
        if name not in spec.removed:
            shape = _fire_shape(spec, name, index)
            body.append((name, shape))
            body += [(f"{name}_{copy + 2}", shape) for copy in range(spec.replicated.count(name))]
        if name in spec.pools:
            body.append((f"pool{index + 2}", None))
    while body[-1][1] is None:  # a pool with no Fire module behind it would only shrink what the head averages anyway
        body.pop()
    _check_sizes(spec, pools=[name for name, shape in body if shape is None])
    return body


def _fire_shape(spec: SqueezeNetSpec, name: str, index: int) -> FireShape:
    expand = spec.base_e + spec.incr_e * (index // spec.freq)
    squeeze = round(spec.squeeze_ratio * expand)
    large = round(spec.expand_3x3 * expand)
    if squeeze == 0:
        raise InputError(
            f"model.squeeze_ratio: {spec.squeeze_ratio} of the {expand} expand filters of {name} is less than one filter"
            f" (allowed: from {0.5 / expand:.2g}, or a larger model.base_e)"
        )
    if 0 < spec.expand_3x3 < 1 and large in {0, expand}:
        raise InputError(
            f"model.expand_3x3: {spec.expand_3x3} of the {expand} expand filters of {name} leaves one kind without a filter"
            " (allowed: 0 or 1 for a single kind, a share closer to 0.5, or a larger model.base_e)"
        )
    return FireShape(squeeze, expand - large, large)


def _check_sizes(spec: SqueezeNetSpec, pools: list[str]) -> None:
    padded = spec.input_size + 2 * spec.first_padding
    if spec.first_kernel > padded:
        raise InputError(
            f"model.first_kernel: {spec.first_kernel} is larger than the padded image (allowed: 1 to {padded}"
            f" with input_size {spec.input_size} and first_padding {spec.first_padding})"
        )
    size = (padded - spec.first_kernel) // spec.first_stride + 1
    for name in pools:
        if size < 2:
            raise InputError(
                f"model.pools: the input of {name} is 1x1, so there is nothing to pool"
                " (allowed: fewer pools, a smaller first_kernel or first_stride, or more first_padding)"
            )
        size //= 2  # 3x3, stride 2, ceil mode: ceil((size - 3) / 2) + 1
