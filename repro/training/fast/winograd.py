"""3x3 filters over small images by Winograd's algorithm (Winograd 1980; Lavin and Gray 2016, section 4).

Images and filters are transformed, multiplied there element by element, and the products are transformed back. For an output
tile of 3x3 pixels that takes 25 multiplications for each pair of an input and an output channel in place of 81, for 4x4
pixels 36 in place of 144. The element-wise products, summed over channels, are one matrix product for each of the 25 or 36
places, and all transforms are matrix products with small constant matrices.

The result is that of a convolution but for rounding: its errors are a few times those of torch's convolution, as
`benchmarks/products.py` measures.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

_TILES = {3: 3, 4: 4, 6: 3, 8: 4}
"""Height and width of an image -> those of a tile of it. For larger images the transforms cost what the products save."""
_MANY = 32
"""Channels from which on that holds for images of several tiles."""
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where polynomials are evaluated; infinity joins them. Rounding errors depend on the choice (Barabasz et al. 2020): a test
holds that they are larger with 2 in place of 0.5."""


def pays(channels: int, height: int, width: int) -> bool:
    """Whether this was measured to be faster than torch's convolution over such images."""
    tile = _TILES.get(height)
    return height == width and tile is not None and (tile == height or channels >= _MANY)


@dataclass(frozen=True, slots=True)
class Transforms:
    """Matrices for images of one size. The pixels of an image, or of a tile, are one dimension here."""

    tile: int
    """Height, and width, of a tile of the output."""
    across: int
    """Tiles in each direction."""
    of_images: Tensor
    """(tiles * places, size * size), with (tile + 2)^2 places a tile: zeros around the image are counted in."""
    of_filters: Tensor
    """(places, 9)."""
    of_products: Tensor
    """(tile * tile, places)."""


@functools.cache
def transforms(size: int, dtype: torch.dtype) -> Transforms:
    """The matrices for images of `size` x `size` pixels.

    Evaluation at tile + 2 points turns a product of polynomials with `tile` and 3 coefficients into one number a point, the
    inverse of the evaluation turns these into coefficients, and filtering is the transpose of that (Winograd's theorem).
    """
    tile = _TILES[size]
    places, across = tile + 2, size // tile
    points = torch.tensor(_POINTS[: places - 1], dtype=torch.float64)

    def evaluation(coefficients: int) -> Tensor:
        at_infinity = torch.zeros(1, coefficients, dtype=torch.float64)
        at_infinity[0, -1] = 1
        return torch.cat((points[:, None] ** torch.arange(coefficients), at_infinity))

    of_tiles = torch.zeros(across, places, size + 2, dtype=torch.float64)
    for number in range(across):
        of_tiles[number, :, number * tile : number * tile + places] = torch.linalg.inv(evaluation(places)).t()
    of_images = of_tiles[:, :, 1:-1]  # without the zeros around the image
    of_filters, of_products = evaluation(3), evaluation(tile).t()
    return Transforms(
        tile,
        across,
        torch.einsum("apx,bqy->abpqxy", of_images, of_images).reshape(-1, size**2).to(dtype),
        torch.kron(of_filters, of_filters).to(dtype),
        torch.kron(of_products, of_products).to(dtype),
    )


def forward(images: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The convolution with stride 1 and padding 1, and what `backward` needs.

    Args:
        images: (N, size * size, channels), contiguous.
        weight: (filters, 9, channels), contiguous.
        bias: (filters,)

    Returns:
        (N, size * size, filters), contiguous; images and filters as they are transformed.
    """
    by = _transforms(images)
    pixels = _multiply(by.of_images, images).view(-1, len(by.of_filters), images.shape[2])
    filters = _multiply(by.of_filters, weight)
    products = torch.bmm(pixels.transpose(0, 1), filters.permute(1, 2, 0))  # (places, N * tiles, filters)
    matrices = by.of_products.expand(len(pixels), -1, -1)
    products = products.transpose(0, 1)
    output = torch.bmm(matrices, products) if bias is None else torch.baddbmm(bias, matrices, products)
    return _as_images(output, by), (pixels, filters)


def backward(gradient: Tensor, pixels: Tensor, filters: Tensor, onto: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gradients of images and weight, shaped as these.

    Args:
        gradient: (N, size * size, filters), contiguous.
        pixels: the images as `forward` transformed them.
        filters: the weight as `forward` transformed it.
        onto: shaped as the images; what is found for them is added to it, in place.
    """
    by = _transforms(gradient)
    number = len(gradient)
    products = _multiply(by.of_products.t(), _as_tiles(gradient, by))  # (N * tiles, places, filters)
    to_pixels = torch.bmm(products.transpose(0, 1), filters.transpose(0, 1)).transpose(0, 1)
    to_pixels = to_pixels.reshape(number, -1, pixels.shape[2])
    matrices = by.of_images.t().expand(number, -1, -1)
    to_images = torch.bmm(matrices, to_pixels) if onto is None else onto.baddbmm_(matrices, to_pixels)
    to_filters = torch.bmm(products.permute(1, 2, 0), pixels.transpose(0, 1))  # (places, filters, channels)
    return to_images, _multiply(by.of_filters.t(), to_filters.transpose(0, 1))


def _transforms(images: Tensor) -> Transforms:
    return transforms(round(images.shape[1] ** 0.5), images.dtype)


def _multiply(matrix: Tensor, stack: Tensor) -> Tensor:
    """(A, B) times each of (number, B, C): (number, A, C), contiguous."""
    return torch.bmm(matrix.expand(len(stack), -1, -1), stack)


def _as_tiles(images: Tensor, by: Transforms) -> Tensor:
    """(N, size * size, channels) to (N * tiles, tile * tile, channels), contiguous; one tile is the image itself."""
    tiles = images.view(-1, by.across, by.tile, by.across, by.tile, images.shape[2])
    return tiles.transpose(2, 3).reshape(-1, by.tile**2, images.shape[2])


def _as_images(tiles: Tensor, by: Transforms) -> Tensor:
    """`_as_tiles` undone."""
    images = tiles.view(-1, by.across, by.across, by.tile, by.tile, tiles.shape[2])
    return images.transpose(2, 3).reshape(-1, (by.across * by.tile) ** 2, tiles.shape[2])
