"""What is known of a data set without its images: constants, or the manifest that lies beside its cache file.

    NAME-DIGEST.u8     images (N, side, side, 3) uint8, then labels: (N,) uint8, or little-endian int32 above 256 classes
    NAME-DIGEST.json   the manifest: a `KnownData`; cifar10 and digits need none, their constants stand below

DIGEST is the first 16 digits of the data set's digest. Planning and comparing read this module and never the images.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from repro.errors import InputError, unknown
from repro.validation import Strict, expanded

FOLDER = "imagefolder"
"""Name of the data sets that are folders of images; `imagefolder:PATH` on the command line."""

Counts: TypeAlias = Annotated[tuple[int, ...], Field(min_length=1, max_length=3)]


class KnownData(BaseModel):
    """A data set as planning, training and comparing know it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """A name of `NAMES`, or `imagefolder:` with the folder's own name."""
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the cache file; of a folder of images, over the side asked for and the files' bytes."""
    split_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the three index arrays (train, validation, test) as little-endian int64."""
    classes: tuple[str, ...] = Field(min_length=2)
    images: tuple[int, int, int]
    """Number of images in the training, validation and test split."""
    side: int = Field(32, ge=8, le=1024)
    """Height and width of the images in pixels; there are three channels."""
    official: Counts
    """Numbers of images that the source itself tells apart, in the order of the cache: all; training and held out, which
    is halved into validation and test; or training, validation and test."""
    smallest: int = Field(1, ge=0)
    """Images of the smallest class among those for training and validation: as many folds as there can be."""
    content: str = ""
    """SHA-256 over the cache file where that is not the digest."""
    source: str = ""
    """The folder that the images were read from."""
    fingerprint: str = ""
    """SHA-256 over names, sizes and times of the files there: while it is the same, they are not read again."""
    unreadable: tuple[str, ...] = ()
    """Files there that are no images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.side, self.side, 3

    @property
    def label_type(self) -> Literal["u1", "<i4"]:
        """Type of a label in the cache file, as numpy writes it; its last digit is the number of bytes."""
        return "u1" if len(self.classes) <= 256 else "<i4"

    @property
    def size(self) -> int:
        """Bytes of the cache file."""
        return sum(self.images) * (math.prod(self.shape) + int(self.label_type[-1]))


DATASETS: Mapping[str, KnownData] = {
    "cifar10": KnownData(
        name="cifar10",
        digest="795f1793d7b8f8883c578442a02455d2469d49685325e98ea0621b15f4a88d69",
        split_digest="50e892e7915c712b30809446b846fef4d352d3a192ee29680817c98e242440dd",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        images=(50_000, 5_000, 5_000),
        official=(50_000, 10_000),
        smallest=5_500,
    ),
    "digits": KnownData(
        name="digits",
        digest="d5959d0b8bfed833d936ef995040499160cfa8d61c2bb7d6be7a04c100bb7e2c",
        split_digest="20651c3948a8432f6738de80bee8bc4be80cf7b956551fd82c0ce25a0892b946",
        classes=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
        images=(1_437, 180, 180),
        official=(1_797,),
        smallest=156,
    ),
}
"""The data sets whose digests are constants: their files were at hand. `repro data` checks what it reads against these."""

NAMES = (*DATASETS, "cifar100", "mnist", "fashion_mnist", "svhn")
"""Every data set that is called by a name."""


def _data_set(name: Any) -> Any:
    if name not in NAMES and not (isinstance(name, str) and name.startswith(f"{FOLDER}:") and name != f"{FOLDER}:"):
        raise ValueError(f"data.dataset: {unknown('value', name, [*NAMES, f'{FOLDER}:PATH'])}")
    return name


class DataSpec(Strict):
    """Which images are seen, and how. The digests come from what is known of the data set."""

    dataset: Annotated[str, BeforeValidator(_data_set)] = "cifar10"
    """Name of the data set; `imagefolder:` with the folder's own name for a folder of images."""
    digest: str = Field("", pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of all images and labels; of a folder of images, of its files and the image size."""
    split_digest: str = Field("", pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the indices of the training, validation and test split, without folds."""
    image_size: int = Field(32, ge=8, le=1024)
    """Height and width of the images in pixels."""
    normalisation: Literal["channel", "none"] = "channel"
    """`channel`: by mean and standard deviation of the training split; `none`: pixels in 0..1 as they are."""
    augmentation: Literal["none", "flip", "crop_flip"] = "none"
    """`none`; `flip`: half of the training images are mirrored, a different half each epoch; `crop_flip`: they are also
    shifted by up to four pixels in each direction, padded with black."""
    folds: int | None = Field(None, ge=2, le=1000)
    """Number of folds that the training and validation images are divided into; null for the fixed split."""
    fold: int | None = Field(None, ge=0)
    """The fold that is the validation split, from 0; null for the fixed split. The test split stays."""

    @model_validator(mode="before")
    @classmethod
    def _known_digests(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        known = DATASETS.get(str(given.get("dataset", "cifar10")))
        return given if known is None else {"digest": known.digest, "split_digest": known.split_digest, **given}

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not self.digest or not self.split_digest:
            raise ValueError(f"data.digest: is not known; `repro data --dataset {self.dataset}` prepares the data set")
        if (self.fold is None) != (self.folds is None):
            raise ValueError(
                "data.fold: is set by the plan for each fold; give the number of folds instead (--folds 5, or folds: 5)"
            )
        if self.fold is not None and self.folds is not None and self.fold >= self.folds:
            raise ValueError(
                f"data.fold: {self.fold} is not one of {self.folds} folds (allowed: 0 to {self.folds - 1})"
            )
        if self.image_size != 32 and not self.dataset.startswith(FOLDER):
            raise ValueError(f"data.image_size: {self.dataset} has images of 32x32, got {self.image_size}")
        return self


def named(dataset: str, side: int = 32) -> str:
    """The name of a data set in a spec: `imagefolder:photos` for `imagefolder:~/photos/`.

    Raises:
        InputError: no such data set, or none whose images have `side` pixels in height and width.
    """
    kind, colon, path = dataset.partition(":")
    if kind == FOLDER and path.strip():
        return f"{FOLDER}:{as_text(expanded(path).absolute().name) or 'root'}"
    if dataset not in NAMES or colon:
        raise unknown("data set", dataset, [*NAMES, f"{FOLDER}:PATH"])
    if side != 32:
        raise InputError(f"data.image_size: {dataset} has images of 32x32, got {side}")
    return dataset


def as_text(path: Path | str) -> str:
    """A path as text that a file of JSON holds; a byte of it that is no UTF-8 becomes its escape."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def cache_of(dataset: str, digest: str, folder: Path) -> Path:
    """The cache file of a data set; the manifest beside it ends in `.json`."""
    return folder / f"{kind_of(dataset)}-{digest[:16]}.u8"


def kind_of(dataset: str) -> str:
    """The name without a path: what identifies a data set together with its digest."""
    return dataset.partition(":")[0]


def whole(known: KnownData, folder: Path) -> Path | None:
    """The cache file of a data set in `folder`; None where it is not there, or not as long as it must be."""
    cache = cache_of(known.name, known.digest, folder)
    return cache if cache.is_file() and cache.stat().st_size == known.size else None


def known(dataset: str, digest: str, folder: Path) -> KnownData | None:
    """What is known of the data set that a spec names: its constants, or the manifest in `folder`; None without one."""
    constant = DATASETS.get(dataset)
    if constant is not None and digest == constant.digest:
        return constant
    found = read(cache_of(dataset, digest, folder).with_suffix(".json"))
    return found if found is not None and found.digest == digest else None


def prepared(folder: Path, dataset: str) -> list[KnownData]:
    """The data sets of a kind whose cache files are in `folder`: the one with constants, or all with manifests, by name."""
    constant = DATASETS.get(dataset)
    manifests = sorted(folder.glob(f"{kind_of(dataset)}-*.json"))
    found = [read(path) for path in manifests] if constant is None else [constant]
    return [one for one in found if one is not None and whole(one, folder) is not None]


def read(manifest: Path) -> KnownData | None:
    """The manifest in a file; None where there is none.

    Raises:
        InputError: the file is not a manifest.
    """
    try:
        return KnownData.model_validate_json(manifest.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or "it is not a manifest"
        raise InputError(
            f"{manifest}: cannot be read ({reason}); delete it, and the data set is prepared again"
        ) from None
