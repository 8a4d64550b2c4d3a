"""Data sets: what is verified before it is read, what the splits are, and what a user is told where files are wrong."""

import hashlib
import io
import os
import pickle
import tarfile
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch

from repro import datasets
from repro.datasets import DATASETS, DataSpec
from repro.errors import InputError
from repro.training import data, prepare
from repro.training.cache import LOCK, describe
from repro.training.torchvision_shim import import_torchvision

DIGITS = DataSpec(dataset="digits")


@pytest.fixture
def cache(digits, tmp_path):
    """A copy of the cache file of digits in a folder of its own."""
    source = prepare.prepare("digits", digits)
    copy = tmp_path / source.name
    copy.write_bytes(source.read_bytes())
    return copy


def test_digits_are_scikit_learns_images(digits):
    from sklearn.datasets import load_digits

    small = load_digits()
    loaded = data.load(prepare.prepare("digits", digits), DIGITS)
    assert loaded.images.shape == (1797, 32, 32, 3)
    assert loaded.images.dtype == torch.uint8
    assert loaded.labels.tolist() == small.target.tolist()
    corners = loaded.images[:, ::4, ::4].numpy()
    assert np.array_equal(corners, np.repeat((small.images.astype(int) * 255 // 16)[..., None], 3, axis=3))
    assert torch.equal(loaded.images[:, 3::4, 3::4], loaded.images[:, ::4, ::4])
    assert loaded.classes == tuple("0123456789")


def assert_stratified(loaded, known):
    splits = [loaded.train, loaded.val, loaded.test]
    assert tuple(len(split) for split in splits) == known.images
    together = torch.cat(splits)
    assert torch.equal(together.sort().values, torch.arange(len(loaded.labels)))
    for split in splits:
        assert torch.equal(split, split.sort().values)
    for split in splits[1:]:
        counts = torch.bincount(loaded.labels[split], minlength=10)
        share = torch.bincount(loaded.labels[torch.cat(splits[1:])], minlength=10) / 2
        assert (counts - share).abs().max() <= 1


def test_splits_are_disjoint_and_stratified(digits):
    assert_stratified(data.load(prepare.prepare("digits", digits), DIGITS), DATASETS["digits"])


def test_moments_are_those_of_the_training_pixels(digits):
    loaded = data.load(prepare.prepare("digits", digits), DIGITS)
    pixels = loaded.images[loaded.train].numpy().astype(np.float64).reshape(-1, 3) / 255
    assert torch.equal(loaded.mean, torch.tensor(pixels.mean(0), dtype=torch.float32))
    assert torch.equal(loaded.std, torch.tensor(pixels.std(0), dtype=torch.float32))


def test_a_channel_that_is_the_same_everywhere_is_normalised_to_zeros():
    images = torch.randint(0, 256, (6, 4, 4, 3), dtype=torch.uint8)
    images[..., 1] = 7
    mean, std = data._moments(images, torch.arange(6))
    assert (mean[1].item(), std[1].item()) == (pytest.approx(7 / 255), 1.0)
    assert 0.0 < std[0].item() < 1.0


def test_an_intact_cache_is_kept(cache):
    before = cache.stat()
    assert prepare.prepare("digits", cache.parent) == cache
    assert (cache.stat().st_ino, cache.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "long"])
def test_a_wrong_cache_is_refused_and_rebuilt(cache, damage):
    good = cache.read_bytes()
    bad = {"bit": bytes([good[0] ^ 1]) + good[1:], "short": good[:-1], "empty": b"", "long": good + b"\0"}[damage]
    cache.write_bytes(bad)
    with pytest.raises(InputError, match=r"repro data --dataset digits` builds it"):
        data.load(cache, DIGITS)
    assert prepare.prepare("digits", cache.parent) == cache
    assert cache.read_bytes() == good
    assert {path.name for path in cache.parent.iterdir()} == {cache.name, LOCK}


def test_a_missing_cache_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none.u8: cannot be read; `repro data"):
        data.load(tmp_path / "none.u8", DIGITS)


@pytest.mark.parametrize(("field", "named"), [("digest", "data.digest"), ("split_digest", "data.split_digest")])
def test_a_run_declared_on_other_data_is_refused(cache, field, named):
    with pytest.raises(InputError, match=named):
        data.load(cache, DIGITS.model_copy(update={field: "1" * 64}))


def test_images_are_mapped_and_the_file_is_never_changed(cache):
    before = cache.read_bytes()
    loaded = data.load(cache, DIGITS)
    loaded.images[0] = 7
    assert cache.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written or read .*--data-dir") as caught:
        prepare.prepare("digits", tmp_path / "file" / "data")
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        prepare.prepare("digits", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_an_unknown_data_set_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"unknown data set 'cifar11'; did you mean 'cifar10'\?"):
        prepare.prepare("cifar11", tmp_path)


class Marker:
    """Unpickling it creates a file: what a tampered batch could do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """torchvision's CIFAR10 with five batches of 4 images and a test batch of 20; returns the folder of its files."""
    cifar10 = import_torchvision().datasets.CIFAR10
    folder = tmp_path / "source" / cifar10.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images, labels, sums = [], [], {}

    def write(name, content):
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        sums[name] = hashlib.md5(raw).hexdigest()

    for name, count in [*((f"data_batch_{i}", 4) for i in range(1, 6)), ("test_batch", 20)]:
        batch = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        targets = [i // 2 for i in range(count)]
        write(name, {"data": batch, "labels": targets})
        images.append(batch.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels += targets
    write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(cifar10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(cifar10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cifar10, "meta", cifar10.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(cifar10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("no_proxy", "*")
    digest = hashlib.sha256(np.concatenate(images).tobytes() + bytes(labels)).hexdigest()
    known = describe("cifar10", np.array(labels), DATASETS["cifar10"].classes, (20, 20), digest=digest)
    monkeypatch.setattr(datasets, "DATASETS", {"cifar10": known})
    return folder


def spec_of(known):
    return DataSpec(digest=known.digest, split_digest=known.split_digest)


def test_cifar10_is_read_through_torchvision(small_cifar):
    known = datasets.DATASETS["cifar10"]
    loaded = data.load(prepare.prepare("cifar10", small_cifar.parent), spec_of(known))
    assert_stratified(loaded, known)
    assert torch.equal(loaded.train, torch.arange(20))
    with (small_cifar / "data_batch_2").open("rb") as file:
        expected = pickle.load(file)
    assert torch.equal(loaded.images[4:8].permute(0, 3, 1, 2).flatten(1), torch.from_numpy(expected["data"]))


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_tampered_file_is_named_and_never_unpickled(small_cifar, tmp_path, name):
    marker = tmp_path / "unpickled"
    (small_cifar / name).write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(InputError, match=rf"{name}: is corrupted \(MD5 .*delete it") as caught:
        prepare.prepare("cifar10", small_cifar.parent)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    pickle.loads((small_cifar / name).read_bytes())
    assert marker.exists()


def test_missing_files_without_a_network_are_one_quiet_line(small_cifar, capfd):
    (small_cifar / "data_batch_4").unlink()
    with pytest.raises(InputError, match=r"data_batch_4 missing, and the download failed \(.*refused") as caught:
        prepare.prepare("cifar10", small_cifar.parent)
    message = str(caught.value)
    assert "\n" not in message
    assert "--data-dir" in message
    assert "--dataset digits" in message
    assert capfd.readouterr() == ("", "")


def test_missing_files_are_downloaded_quietly(small_cifar, tmp_path, monkeypatch, capfd):
    served = tmp_path / "served"
    served.mkdir()
    cifar10 = import_torchvision().datasets.CIFAR10
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(small_cifar, arcname=small_cifar.name)
    (served / cifar10.filename).write_bytes(archive.getvalue())

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(served))

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(cifar10, "url", f"http://127.0.0.1:{server.server_port}/{cifar10.filename}")
        monkeypatch.setattr(cifar10, "tgz_md5", hashlib.md5(archive.getvalue()).hexdigest())
        cache = prepare.prepare("cifar10", tmp_path / "new")
        server.shutdown()
    known = datasets.DATASETS["cifar10"]
    assert_stratified(data.load(cache, spec_of(known)), known)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(
    "REPRO_TEST_CIFAR10" not in os.environ, reason="REPRO_TEST_CIFAR10 names no folder of the real data"
)
def test_the_real_cifar10_has_the_known_digests(tmp_path):
    files = Path(os.environ["REPRO_TEST_CIFAR10"]) / "cifar-10-batches-py"
    (tmp_path / files.name).symlink_to(files)
    loaded = data.load(prepare.prepare("cifar10", tmp_path), DataSpec())
    assert_stratified(loaded, DATASETS["cifar10"])
    assert torch.bincount(loaded.labels[loaded.val]).tolist() == [500] * 10
    assert loaded.std.tolist() == pytest.approx([0.24703, 0.24349, 0.26159], abs=1e-5)
