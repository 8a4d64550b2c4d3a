"""The journal under everything that happens to files: cuts at every byte, damage, full disks, kill -9, two writers."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import journal
from repro.errors import InputError, ReproError
from repro.journal import Attempt, Difference, Stop, Writer
from repro.records import Environment, EpochRecord, RunResult
from repro.spec import resolve
from tests import journals

SPEC = resolve({"model.name": "squeezenet"}, "test")
ENVIRONMENT = Environment(
    commit="abc",
    dirty=True,
    diff_digest="d" * 64,
    python="3.11.0",
    packages={"torch": "2.13.0", "naïve": "1\n2"},
    platform="Linux",
    hardware="one core",
    host="here",
    device="cpu",
    threads=1,
    side_by_side=2,
    deterministic=True,
)
RESULT = RunResult(
    outcome="finished",
    test_loss=1.0,
    test_accuracy=0.5,
    best_val_accuracy=0.6,
    best_epoch=2,
    epochs_run=2,
    mean_epoch_seconds=0.5,
    model_size_mib=2.9,
    model_size_legacy_mib=2.898,
    parameters=746_526,
    multiply_adds=9_148_448,
    weights_digest="f" * 64,
    confusion=((1, 2), (3, 4)),
)


def attempt(resumed: int = 0, name: str = "1" * 32) -> Attempt:
    return Attempt(name, SPEC.model_dump(mode="json"), "study", "variant", ENVIRONMENT, resumed, pid=1)


def epoch(number: int, loss: float = 1.5) -> EpochRecord:
    return EpochRecord(number, loss, 0.25, 1.25, 0.5, 12.5)


def write(folder, *records, start: int = 1_700_000_000_000) -> Path:
    folder.mkdir(exist_ok=True)
    writer = Writer(folder)
    for number, record in enumerate(records):
        writer.append(record, start + number)
    writer.close()
    return folder / journal.NAME


def records(folder):
    known = journal.read(folder)
    return [] if known is None else [entry.record for entry in known.entries]


def bits(record):
    """A record as text that tells -0.0 from 0.0 and takes nan for nan."""
    return repr(dataclasses.asdict(record))


@pytest.fixture
def whole(tmp_path):
    """A finished run's folder: two attempts, three epochs, one of them trained twice with another outcome."""
    story = (attempt(), epoch(1), epoch(2), Stop("killed", "stopped in epoch 3"), attempt(1))
    write(tmp_path / "run", *story, Difference(2, "train_loss", 1.5, 1.25), epoch(3), RESULT)
    return tmp_path / "run"


numbers = st.floats()
words = st.text(max_size=30)
any_environment = st.builds(
    Environment,
    commit=words,
    dirty=st.booleans(),
    diff_digest=words,
    python=words,
    packages=st.dictionaries(words, words, max_size=3),
    platform=words,
    hardware=words,
    host=words,
    device=words,
    threads=st.integers(),
    side_by_side=st.integers(),
    deterministic=st.booleans(),
)
any_attempt = st.builds(
    Attempt,
    journal=words,
    spec=st.just(SPEC.model_dump(mode="json")),
    study=words,
    variant=words,
    environment=any_environment,
    resumed_epoch=st.integers(0),
    pid=st.integers(0),
)
any_other = st.one_of(
    st.builds(Difference, st.integers(), words, numbers, numbers),
    st.builds(Stop, words, st.text()),
    any_attempt,
    st.builds(
        RunResult,
        st.sampled_from(["finished", "diverged", "chance"]),
        *[numbers] * 3,
        st.integers(),
        st.integers(),
        *[numbers] * 3,
        st.integers(),
        st.integers(),
        words,
        st.lists(st.lists(st.integers(), max_size=3).map(tuple), max_size=3).map(tuple),
    ),
)


@given(any_attempt, st.lists(st.tuples(*[numbers] * 5) | any_other, max_size=8), st.integers(0, 2**53))
def test_what_is_appended_is_read(tmp_path_factory, first, others, start):
    folder = tmp_path_factory.mktemp("run")
    story, epochs = [first], 0
    for other in others:
        if isinstance(other, tuple):
            epochs += 1
            story.append(EpochRecord(epochs, *other))
        else:
            story.append(other)
    write(folder, *story, start=start)
    known = journal.read(folder)
    assert [bits(entry.record) for entry in known.entries] == [bits(record) for record in story]
    assert [entry.time_ms for entry in known.entries] == list(range(start, start + len(story)))
    assert known.size == (folder / journal.NAME).stat().st_size
    assert known.id == first.journal
    assert known.spec == SPEC
    shutil.rmtree(folder)


def test_views_tell_the_story(whole):
    known = journal.read(whole)
    assert [start.resumed_epoch for start in known.attempts] == [0, 1]
    assert known.epochs == (epoch(1), epoch(2), epoch(3))
    assert known.differences == (Difference(2, "train_loss", 1.5, 1.25),)
    assert known.result == RESULT
    assert known.stop is None
    assert known.id == "1" * 32
    assert known.folder == whole


def test_a_journal_in_which_the_last_attempt_stopped_says_how(tmp_path):
    write(tmp_path / "run", attempt(), epoch(1), Stop("failed", "OSError: no space"))
    assert journal.read(tmp_path / "run").stop == Stop("failed", "OSError: no space")
    write(tmp_path / "run", attempt(1))
    assert journal.read(tmp_path / "run").stop is None


def test_an_empty_folder_has_no_journal(tmp_path):
    assert journal.read(tmp_path) is None
    assert journal.read(tmp_path / "none") is None
    assert not journal.held(tmp_path / "none")


def test_the_id_lasts_over_attempts(tmp_path):
    first = Writer(tmp_path)
    first.append(attempt(name=first.journal_id))
    first.close()
    second = Writer(tmp_path)
    second.close()
    assert second.journal_id == first.journal_id
    assert journal.read(tmp_path).id == first.journal_id
    (tmp_path / "other").mkdir()
    other = Writer(tmp_path / "other")
    other.close()
    assert other.journal_id != first.journal_id


class TestCut:
    """A crash leaves the file whole up to some byte of its last record."""

    def test_at_every_byte_of_the_last_record_the_others_load_and_a_writer_goes_on(self, tmp_path):
        path = write(tmp_path / "run", attempt(), epoch(1), epoch(2))
        raw = path.read_bytes()
        last = raw.rindex(b"\n", 0, -1) + 1
        for cut in range(last, len(raw)):
            path.write_bytes(raw[:cut])
            assert records(path.parent) == [attempt(), epoch(1)]
            assert path.read_bytes() == raw[:cut]  # reading changes nothing
            write(path.parent, epoch(2), start=1_700_000_000_002)
            assert path.read_bytes() == raw

    def test_at_every_byte_of_the_file_a_prefix_loads(self, whole):
        raw = (whole / journal.NAME).read_bytes()
        entries, size = journal.parse(raw, "whole")
        assert size == len(raw)
        for cut in range(len(raw)):
            found, size = journal.parse(raw[:cut], "cut")
            assert len(found) == raw.count(b"\n", 0, cut)
            assert found == entries[: len(found)]
            assert size == raw.rfind(b"\n", 0, cut) + 1

    @pytest.mark.parametrize("tail", [b"\0" * 200 + b"\n", b"{\n", b"\xff\xfe\n", b"\n", b'{"kind":"epoch"\0\0\0\n'])
    def test_a_last_line_whose_bytes_did_not_all_arrive_is_cut_off(self, tmp_path, tail):
        path = write(tmp_path / "run", attempt(), epoch(1))
        raw = path.read_bytes()
        path.write_bytes(raw + tail)
        assert records(path.parent) == [attempt(), epoch(1)]
        write(path.parent)
        assert path.read_bytes() == raw

    def test_a_first_record_that_was_cut_is_no_journal_and_a_new_one_begins(self, tmp_path):
        path = write(tmp_path / "run", attempt())
        path.write_bytes(path.read_bytes()[:-1])
        assert journal.read(path.parent) is None
        write(path.parent, attempt(name="2" * 32))
        assert journal.read(path.parent).id == "2" * 32

    @given(st.binary(max_size=300))
    def test_no_bytes_raise_anything_but_one_line(self, raw):
        try:
            entries, size = journal.parse(raw, "journal.jsonl")
        except ReproError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert size <= len(raw)
            assert raw[:size].count(b"\n") >= len(entries)


class TestDamage:
    """What no crash does: the file was changed by hand, or by a later version. It is never cut off."""

    def lines(self, whole):
        return (whole / journal.NAME).read_bytes().splitlines(keepends=True)

    def refused(self, folder, lines):
        path = folder / journal.NAME
        raw = b"".join(lines)
        path.write_bytes(raw)
        with pytest.raises(ReproError) as excinfo:
            journal.read(folder)
        with pytest.raises(ReproError):
            Writer(folder)
        assert path.read_bytes() == raw
        message = str(excinfo.value)
        assert message.startswith(str(path))
        assert len(message.splitlines()) == 1
        return message

    @pytest.mark.parametrize(
        "broken",
        [b"\n", b"{\n", b"5\n", b"null\n", b"[]\n", b'"text"\n', b"{}\n", b"\xff\n", b'{"kind":"epoch"}\n', b'{"kind":[]}\n',
         b'{"kind":"epoch","time_ms":null}\n', b'{"kind":"epoch","time_ms":Infinity}\n', b"[" * 9_000 + b"\n",
         b'{"kind":"epoch","time_ms":1,"epoch":2}\n', b'{"kind":"stop","time_ms":1,"reason":"","message":"","more":1}\n',
         b'{"kind":"result","time_ms":1,"confusion":5}\n', b'{"kind":"attempt","time_ms":1,"schema":1}\n',
         b'{"kind":"attempt","time_ms":1,"schema":1,"environment":[]}\n'],
        ids=lambda line: line[:60].decode(errors="replace"),
    )  # fmt: skip
    def test_a_line_in_the_middle_is_named(self, whole, broken):
        lines = self.lines(whole)
        lines[2] = broken
        assert ": line 3 is broken (" in (said := self.refused(whole, lines))
        assert "--fresh true sets it aside and trains the run again" in said

    def test_any_byte_of_the_middle(self, whole):
        path, lines = whole / journal.NAME, self.lines(whole)
        before, line, after = b"".join(lines[:2]), lines[2], b"".join(lines[3:])
        for position in range(len(line)):
            for wrong in {b"\0", b"\n", b'"', b"}", bytes([line[position] ^ 1])} - {line[position : position + 1]}:
                path.write_bytes(before + line[:position] + wrong + line[position + 1 :] + after)
                with pytest.raises(ReproError) as excinfo:  # also a digit, a letter of a name: its checksum tells
                    journal.read(whole)
                assert len(str(excinfo.value).splitlines()) == 1

    @pytest.mark.parametrize("position", [0, 4])
    @pytest.mark.parametrize("schema", [3, None, "1", [], True])
    def test_a_schema_that_is_not_known(self, whole, position, schema):
        lines = self.lines(whole)
        lines[position] = json.dumps(json.loads(lines[position]) | {"schema": schema}).encode() + b"\n"
        said = self.refused(whole, lines)
        assert f"line {position + 1} is broken (schema {schema!r} is not known (allowed: 1, 2); update repro)" in said

    @pytest.mark.parametrize("last", [False, True], ids=["in the middle", "at the end"])
    def test_a_changed_digit_is_noticed(self, whole, last):
        lines = self.lines(whole)[: 3 if last else None]
        lines[2] = lines[2].replace(b'"val_loss":1.25', b'"val_loss":1.35')
        assert "line 3 is broken (its checksum does not match)" in self.refused(whole, lines)
        lines[2] = lines[2][: lines[2].index(b',"crc32"')] + b"}\n"
        assert "line 3 is broken (its checksum does not match)" in self.refused(whole, lines)

    @pytest.mark.parametrize(
        ("position", "field", "value"),
        [(1, "val_loss", "x"), (1, "val_loss", "1.5"), (1, "val_loss", None), (1, "epoch", 1.0), (1, "epoch", True),
         (0, "resumed_epoch", "0"), (0, "study", 5), (0, "spec", []), (0, "environment", {}), (3, "message", 1),
         (5, "recorded", []), (7, "outcome", "over"), (7, "confusion", [[1.5]]), (7, "parameters", None)],
    )  # fmt: skip
    def test_a_value_of_another_type_is_a_broken_record(self, whole, position, field, value):
        story = journals.records(whole / journal.NAME)
        story[position][field] = value
        journals.write(whole / journal.NAME, story)
        said = self.refused(whole, self.lines(whole))
        assert f"line {position + 1} is broken ({field}" in said

    def test_a_schema_that_is_not_known_in_the_only_line(self, whole):
        line = json.dumps(json.loads(self.lines(whole)[0]) | {"schema": 3}).encode() + b"\n"
        assert "schema 3 is not known" in self.refused(whole, [line])

    @pytest.mark.parametrize("position", [1, -1])
    def test_a_kind_of_record_that_is_not_known(self, whole, position):
        lines = self.lines(whole)
        lines[position] = json.dumps(json.loads(lines[position]) | {"kind": "epok"}).encode() + b"\n"
        said = self.refused(whole, lines)
        assert "unknown kind of record 'epok'; did you mean 'epoch'? (allowed: attempt, difference, epoch," in said

    def test_a_journal_without_its_first_line(self, whole):
        assert "does not begin with the start of a run" in self.refused(whole, self.lines(whole)[1:])

    @pytest.mark.parametrize(
        ("order", "said"), [([0, 1, 1], "has epoch 1 where epoch 2"), ([0, 2], "has epoch 2 where")]
    )
    def test_epochs_that_are_doubled_or_missing(self, whole, order, said):
        lines = self.lines(whole)
        assert said in self.refused(whole, [lines[number] for number in order])

    def test_a_result_that_stands_twice_is_one_result(self, whole):
        lines = self.lines(whole)
        (whole / journal.NAME).write_bytes(b"".join([*lines, lines[-1]]))
        known = journal.read(whole)
        assert known.result == RESULT
        assert known.epochs == (epoch(1), epoch(2), epoch(3))

    def test_a_spec_that_is_not_valid_any_more_is_one_line(self, whole):
        lines = self.lines(whole)
        first = json.loads(lines[0])
        first["spec"]["model"]["dropout"] = 7
        journals.write(whole / journal.NAME, [first, *map(json.loads, lines[1:])])
        with pytest.raises(InputError, match=r"journal\.jsonl: model\.dropout: got 7 \(allowed: "):
            assert journal.read(whole).spec

    def test_a_journal_that_cannot_be_read_is_one_line(self, tmp_path):
        (tmp_path / journal.NAME).mkdir()
        with pytest.raises(ReproError, match=r"journal\.jsonl: cannot be read \(Is a directory\)"):
            journal.read(tmp_path)


class TestEarlierVersions:
    """Journals of schema 1, whose records have no checksum."""

    @pytest.fixture
    def former(self, whole):
        path = whole / journal.NAME
        story = [{name: value for name, value in one.items() if name != "crc32"} for one in journals.records(path)]
        for one in story:
            one |= {"schema": 1} if one["kind"] == "attempt" else {}
        path.write_bytes(b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in story[:7]))
        return whole

    def test_they_are_read_as_before(self, former):
        known = journal.read(former)
        assert known.epochs == (epoch(1), epoch(2), epoch(3))
        assert [one.schema for one in known.attempts] == [1, 1]

    def test_they_are_gone_on_with_and_what_follows_has_checksums(self, former):
        path, before = former / journal.NAME, (former / journal.NAME).read_bytes()
        write(former, attempt(3), epoch(4), RESULT)
        raw = path.read_bytes()
        assert raw.startswith(before)
        known = journal.read(former)
        assert known.id == "1" * 32
        assert known.result == RESULT
        path.write_bytes(raw.replace(b'"epoch":4,', b'"epoch":5,'))
        with pytest.raises(ReproError, match=r"line 9 is broken \(its checksum"):
            journal.read(former)

    def test_a_value_of_another_type_is_a_broken_record_there_too(self, former):
        path = former / journal.NAME
        path.write_bytes(path.read_bytes().replace(b'"val_loss":1.25', b'"val_loss":"x"', 1))
        with pytest.raises(ReproError, match=r"line 2 is broken \(val_loss: Input should be a valid number\)"):
            journal.read(former)


class TestDurable:
    def test_a_record_is_on_the_disk_when_append_returns(self, tmp_path, monkeypatch):
        synced = []
        real = os.fsync

        def fsync(descriptor):
            synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), os.fstat(descriptor).st_size))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        writer = Writer(tmp_path)
        assert [path for path, _ in synced] == [str(tmp_path)]  # the new file's name
        for record in (attempt(), epoch(1), epoch(2)):
            synced.clear()
            writer.append(record)
            path = tmp_path / journal.NAME
            assert synced == [(str(path), path.stat().st_size)]
        writer.close()

    def test_a_time_is_that_of_the_append(self, tmp_path):
        before = time.time_ns() // 1_000_000
        writer = Writer(tmp_path)
        writer.append(attempt())
        writer.close()
        assert before <= journal.read(tmp_path).entries[0].time_ms <= time.time_ns() // 1_000_000

    def test_a_full_disk_leaves_a_journal_that_can_be_read_and_continued(self, tmp_path):
        done = python(
            f"""
            import resource, sys
            from pathlib import Path
            from test_journal import attempt, epoch, Writer
            folder = Path({str(tmp_path)!r})
            writer = Writer(folder)
            writer.append(attempt())
            resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "journal.jsonl").stat().st_size + 700,) * 2)
            told = 0
            try:
                for number in range(1, 100):
                    writer.append(epoch(number))
                    told = number
            except OSError as error:
                print(told, error.errno)
            try:
                writer.append(epoch(told + 1))
            except OSError as error:
                print(told, error.errno)
            writer.close()
            """
        )
        first, again = done.splitlines()
        told, _errno = map(int, first.split())
        assert 0 < told < 99
        assert again == first
        assert records(tmp_path) == [attempt(), *map(epoch, range(1, told + 1))]
        assert (tmp_path / journal.NAME).read_bytes().endswith(b"\n")
        write(tmp_path, epoch(told + 1))
        assert journal.read(tmp_path).epochs[-1] == epoch(told + 1)

    def test_a_disk_without_room_says_so_and_goes_on_when_there_is_room(self, small_disk):
        filler = small_disk / "filler"
        folder = small_disk / "run"
        write(folder, attempt())
        writer = Writer(folder)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
        told = 0
        with pytest.raises(OSError, match="No space left"):
            for number in range(1, 10_000):
                writer.append(epoch(number))
                told = number
        assert journal.read(folder).epochs == tuple(map(epoch, range(1, told + 1)))
        filler.unlink()
        writer.append(epoch(told + 1))
        writer.close()
        assert journal.read(folder).epochs == tuple(map(epoch, range(1, told + 2)))
        assert journal.read(folder).size == (folder / journal.NAME).stat().st_size


class TestLock:
    def test_a_second_claim_is_refused_until_the_first_is_closed(self, tmp_path):
        lock = journal.claim(tmp_path)
        assert lock is not None
        assert journal.held(tmp_path)
        assert journal.claim(tmp_path) is None
        lock.close()
        assert not journal.held(tmp_path)
        with journal.claim(tmp_path) as again:
            assert again is not None

    def test_looking_takes_nothing(self, tmp_path):
        journal.claim(tmp_path).close()
        assert not journal.held(tmp_path)
        assert not journal.held(tmp_path)
        with journal.claim(tmp_path):
            assert all(journal.held(tmp_path) for _ in range(100))

    def test_a_folder_that_was_never_claimed_is_free(self, tmp_path):
        assert not journal.held(tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_the_kernel_frees_the_lock_of_a_process_however_it_ends(self, tmp_path, how):
        holder = subprocess.Popen(
            [sys.executable, "-c", CLAIMS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "held\n"
            assert journal.held(tmp_path)
            assert journal.claim(tmp_path) is None
            holder.send_signal(how)
            assert holder.wait(10) == -how
            assert not journal.held(tmp_path)
            lock = journal.claim(tmp_path)
            assert lock is not None
            lock.close()
        finally:
            holder.kill()
            holder.communicate()

    def test_a_child_of_the_holder_does_not_keep_the_lock(self, tmp_path):
        lock = journal.claim(tmp_path)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            lock.close()
            assert not journal.held(tmp_path)
        finally:
            child.communicate()

    def test_those_who_look_do_not_keep_a_claim_away(self, tmp_path, monkeypatch):
        journal.claim(tmp_path).close()
        looker = (tmp_path / "lock").open("rb")
        fcntl.flock(looker, fcntl.LOCK_SH)
        monkeypatch.setattr(journal.time, "sleep", lambda _: looker.close())
        with journal.claim(tmp_path) as lock:
            assert lock is not None
            assert journal.held(tmp_path)


CLAIMS = """
import sys
from pathlib import Path
from repro import journal
lock = journal.claim(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_what_came_out_otherwise_is_named_metric_by_metric_without_times():
    before = EpochRecord(3, math.nan, 0.25, 1.25, 0.5, 12.5)
    again = EpochRecord(3, math.nan, 0.25, 1.5, 0.75, 99.0)
    assert journal.differences(before, before) == []
    assert journal.differences(before, again) == [
        Difference(3, "val_loss", 1.25, 1.5),
        Difference(3, "val_accuracy", 0.5, 0.75),
    ]
    (lost,) = journal.differences(dataclasses.replace(before, train_loss=1.0), before)
    assert (lost.metric, lost.recorded) == ("train_loss", 1.0)
    assert math.isnan(lost.retrained)


def test_journals_are_found_by_name(tmp_path):
    for name in ("b", "a", "c.1"):
        write(tmp_path / name, attempt())
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert [folder.name for folder in journal.find(tmp_path)] == ["a", "b", "c.1"]
    assert journal.find(tmp_path / "none") == []


def test_a_diverged_runs_numbers_survive(tmp_path):
    lost = dataclasses.replace(RESULT, outcome="diverged", test_loss=math.nan, test_accuracy=math.nan, confusion=())
    write(tmp_path, attempt(), epoch(1, math.inf), lost)
    known = journal.read(tmp_path)
    assert known.epochs[0].train_loss == math.inf
    assert math.isnan(known.result.test_loss)
    assert known.result.confusion == ()


def test_ten_thousand_epochs_are_read_at_once(tmp_path):
    story = [attempt(), *map(epoch, range(1, 10_001))]
    path = write(tmp_path, attempt(), epoch(1))
    start, first = journals.records(path)
    journals.write(path, [start, first, *(first | {"epoch": number} for number in range(2, 10_001))])
    assert records(tmp_path) == story


def python(code: str) -> str:
    """Runs code in an interpreter of its own, which can import this module; returns what it prints."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
