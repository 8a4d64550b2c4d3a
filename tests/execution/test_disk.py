"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.execution import disk


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 5_000, memoryview(b"view")])
def test_what_is_written_is_there_and_nothing_else(tmp_path, content):
    (tmp_path / "file").write_bytes(b"former")
    disk.write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == bytes(content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, Path.replace

    def tell_fsync(descriptor):
        happened.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def tell_replace(path, target):
        happened.append(("replace", str(target)))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(Path, "replace", tell_replace)
    path = tmp_path / "file"
    disk.write(path, b"new")
    assert happened == [
        ("fsync", str(tmp_path / ".file.partial")),
        ("replace", str(path)),
        ("fsync", str(tmp_path)),
    ]


def test_a_full_disk_leaves_the_former_file_alone(small_disk):
    path = small_disk / "file"
    disk.write(path, b"former")
    with pytest.raises(OSError, match="No space left"):
        disk.write(path, b"x" * 1_000_000)
    assert path.read_bytes() == b"former"
    assert [path.name for path in small_disk.iterdir()] == ["file"]  # its room is free again
    disk.write(path, b"smaller")
    assert path.read_bytes() == b"smaller"


def test_a_failing_rename_leaves_the_former_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    disk.write(path, b"former")

    def fail(*_):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PermissionError):
        disk.write(path, b"new")
    assert path.read_bytes() == b"former"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        disk.write(tmp_path / "none" / "file", b"new")


WRITES = """
import sys
from pathlib import Path
from repro.execution import disk
path = Path(sys.argv[1])
print("begins", flush=True)
while True:
    for letter in (b"a", b"b"):
        disk.write(path, letter * 300_000)
"""


def test_kill_9_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    moments = random.Random(0)
    for _ in range(8):
        disk.write(path, b"former")
        writer = subprocess.Popen([sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"begins\n"
        time.sleep(moments.uniform(0, 0.1))
        writer.kill()
        writer.communicate()
        assert path.read_bytes() in {b"former", b"a" * 300_000, b"b" * 300_000}
    disk.write(path, b"next")  # whatever the last one left is in nobody's way
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_several_that_write_one_file_leave_it_whole(tmp_path):
    text = "import sys; from pathlib import Path; from repro.execution import disk\n"
    text += "for _ in range(100): disk.write(Path(sys.argv[1]), sys.argv[2].encode() * 4096)"
    words = [[sys.executable, "-c", text, str(tmp_path / "file"), letter] for letter in "abc"]
    writers = [subprocess.Popen(one, stderr=subprocess.PIPE, text=True) for one in words]
    assert [writer.communicate()[1] for writer in writers] == [""] * 3
    content = (tmp_path / "file").read_bytes()
    assert len(content) == 4096 and len(set(content)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
