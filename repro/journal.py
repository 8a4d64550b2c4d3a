"""The journal of one run: an append-only file that survives kill -9 and is replayed with one outcome any number of times.

`runs/<key>/journal.jsonl` holds a JSON record a line, each fsynced before training goes on. The first names the journal
(an id of its own, the spec, the environment); a record an epoch and one at the end follow; every further attempt at the
same run appends to it. A last line without its newline was cut by a crash: it is ignored, and cut off by the next writer.
Each record ends with a checksum of its line, `"crc32"`; only attempts of schema 1, by earlier versions, have none. The
tracking store is fed from here, with these times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from repro import locks
from repro.errors import ReproError, shown, unknown
from repro.records import EPOCH_METRICS, Environment, EpochRecord, RunResult
from repro.spec import RunSpec
from repro.validation import typed, validated

SCHEMA = 2
SCHEMAS = {1, 2}
"""What can be read: records of schema 1 have no checksum."""
NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The start of a process that trains the run: the first one, or one that resumes it."""

    journal: str
    """Id of this journal, the same in all its attempts: what a tracking store knows the run by."""
    spec: dict[str, Any]
    study: str
    variant: str
    environment: Environment
    resumed_epoch: int
    """Epochs that were complete in the checkpoint it went on from; 0 for a start from nothing."""
    pid: int
    schema: int = SCHEMA
    images: tuple[int, ...] = ()
    """Images that it saw of the training, validation and test split; empty in journals of former versions, and where it
    failed before it had read them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A retrained epoch that did not come out as it was recorded: the run is not reproducible here."""

    epoch: int
    metric: str
    recorded: float
    retrained: float


@dataclass(frozen=True, slots=True)
class Stop:
    """An attempt that ended before the run did, and said so."""

    reason: str
    """`killed` (SIGINT or SIGTERM) or `failed`."""
    message: str


Record: TypeAlias = Attempt | EpochRecord | Difference | Stop | RunResult
_KINDS: dict[str, type[Any]] = {
    "attempt": Attempt,
    "epoch": EpochRecord,
    "difference": Difference,
    "stop": Stop,
    "result": RunResult,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with the time it was written, in milliseconds since 1970 UTC."""

    time_ms: int
    record: Record


@dataclass(frozen=True)
class Journal:
    """What a journal says: its entries in order, and views of them."""

    folder: Path
    entries: tuple[Entry, ...]
    size: int
    """Bytes of the complete lines: where the next record goes."""

    @cached_property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every start, the first one first."""
        return tuple(e.record for e in self.entries if isinstance(e.record, Attempt))

    @cached_property
    def starts(self) -> tuple[str, ...]:
        """One digest an attempt, of its start and of all before it: two copies of a journal that go on apart differ there."""
        found = [""]
        for entry in self.entries:
            if isinstance(one := entry.record, Attempt):
                said = f"{found[-1]} {one.journal} {entry.time_ms} {one.environment.host} {one.pid}"
                found.append(hashlib.sha256(said.encode()).hexdigest()[:16])
        return tuple(found[1:])

    @cached_property
    def epochs(self) -> tuple[EpochRecord, ...]:
        """The epochs recorded, 1, 2, ..., each once."""
        return tuple(e.record for e in self.entries if isinstance(e.record, EpochRecord))

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """The retrained epochs that did not equal their record."""
        return tuple(e.record for e in self.entries if isinstance(e.record, Difference))

    @cached_property
    def environments(self) -> tuple[Environment, ...]:
        """Those that its epochs were trained in, in order, and that of the last attempt."""
        found, last = list[Environment](), self.attempts[0].environment
        for entry in self.entries:
            if isinstance(entry.record, Attempt):
                last = entry.record.environment
            elif isinstance(entry.record, EpochRecord) and last not in found:
                found.append(last)
        return tuple(found) if last in found else (*found, last)

    @property
    def mixed(self) -> tuple[str, ...]:
        """What was not the same in all of its environments and may change digits; empty for a run of one piece."""
        found = self.environments
        parts: dict[str, set[object]] = {
            "code": {one.training or f"{one.commit} {one.diff_digest}" for one in found},
            "torch": {one.packages.get("torch") for one in found},
            "hardware": {one.hardware for one in found},
            "threads": {one.threads for one in found},
        }
        return tuple(name for name, values in parts.items() if len(values) > 1)

    @cached_property
    def result(self) -> RunResult | None:
        """The end of the run, or None while it has none."""
        return next((e.record for e in reversed(self.entries) if isinstance(e.record, RunResult)), None)

    @cached_property
    def stop(self) -> Stop | None:
        """How the last attempt stopped, where it said so and the run is not at its end."""
        last = self.entries[-1].record if self.entries else None
        return last if isinstance(last, Stop) else None

    @property
    def id(self) -> str:
        """The journal's id."""
        return self.attempts[0].journal

    @cached_property
    def spec(self) -> RunSpec:
        """The spec of the run."""
        return validated(RunSpec, self.attempts[0].spec, str(self.folder / NAME))


class Writer:
    """The only writer of a journal; the caller holds the folder's lock. Each append is on the disk when it returns."""

    def __init__(self, folder: Path) -> None:
        """Opens the journal of `folder`, cutting off a last record that a crash left incomplete."""
        known = read(folder)
        self.journal_id = known.id if known is not None else uuid.uuid4().hex
        self._size = known.size if known is not None else 0
        self._file = (folder / NAME).open("ab", buffering=0)  # what could not be written is not left in a buffer
        self._file.truncate(self._size)
        sync(folder)  # the file's name lasts as its records do

    def append(self, record: Record, time_ms: int | None = None) -> None:
        """Writes one record and waits until the disk has it.

        Raises:
            OSError: the disk is full or the folder is gone; the journal stays readable.
        """
        if os.fstat(self._file.fileno()).st_nlink == 0:  # the system would go on writing to what nobody can read
            raise FileNotFoundError(errno.ENOENT, "deleted while the run was trained", self._file.name)
        stamp = time.time_ns() // 1_000_000 if time_ms is None else time_ms
        fields = {"kind": _NAMES[type(record)], "time_ms": stamp, **dataclasses.asdict(record)}
        line = sealed(fields)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # an incomplete line is ignored by every reader
                self._file.truncate(self._size)
            raise
        self._size += len(line)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read(folder: Path) -> Journal | None:
    """The journal of a run's folder, or None where it has none or its first record is not complete.

    Raises:
        ReproError: a record that is not the last one is broken, its kind or schema is not known, or the epochs are not
            1, 2, ...: the file was changed by hand, or by a later version.
    """
    path = folder / NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReproError(f"{path}: cannot be read ({error.strerror})") from None
    return of(folder, raw)


def of(folder: Path, raw: bytes) -> Journal | None:
    """The journal whose file in `folder` holds `raw`; the rest is as with `read`."""
    path = folder / NAME
    entries, size = parse(raw, str(path))
    if not entries:
        return None
    if not isinstance(entries[0].record, Attempt):
        raise ReproError(f"{path}: does not begin with the start of a run")
    known = Journal(folder, entries, size)
    for expected, record in enumerate(known.epochs, 1):
        if record.epoch != expected:
            raise ReproError(f"{path}: has epoch {record.epoch} where epoch {expected} is expected")
    return known


def parse(raw: bytes, where: str) -> tuple[tuple[Entry, ...], int]:
    """The complete records at the head of `raw`, and how many bytes they take."""
    entries: list[Entry] = []
    size = 0
    schema = min(SCHEMAS)
    for number, line in enumerate(raw.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            if size + len(line) == len(raw):
                break  # a last record whose bytes did not all reach the disk
            raise _broken(where, number, error) from None
        try:
            entry, schema = _entry(fields, line, schema)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
            raise _broken(where, number, error) from None
        entries.append(entry)
        size += len(line)
    return tuple(entries), size


def sealed(fields: dict[str, Any]) -> bytes:
    """A record's line: its fields, then the checksum of all that stands before."""
    head = json.dumps(fields, separators=(",", ":")).encode()[:-1]
    return head + _seal(head) + b"}\n"


def differences(recorded: EpochRecord, retrained: EpochRecord) -> list[Difference]:
    """The metrics, times left aside, in which an epoch that was trained twice is not bit-identical."""
    pairs = [
        (name, getattr(recorded, name), getattr(retrained, name)) for name in EPOCH_METRICS if name != "epoch_seconds"
    ]
    return [
        Difference(recorded.epoch, name, before, after)
        for name, before, after in pairs
        if before != after and not (math.isnan(before) and math.isnan(after))
    ]


def claim(folder: Path) -> IO[bytes] | None:
    """The lock of a run's folder, held until the returned file is closed; None where another process holds it."""
    return locks.claim(folder / "lock")


def held(folder: Path) -> bool:
    """Whether some process trains the run of this folder now."""
    return locks.held(folder / "lock")


def find(runs: Path) -> list[Path]:
    """The folders below `runs` that hold a journal, oldest name first."""
    return sorted(path.parent for path in runs.glob(f"*/{NAME}"))


def readable(runs: Path) -> Iterator[Journal]:
    """The journals below `runs` that can be read, and whose spec is one of this version; others are passed over."""
    for folder in find(runs):
        try:
            known = read(folder)
            if known is None or not known.spec:  # the spec is read here: it may be one that this version does not know
                continue
        except ReproError:
            continue  # it is said where the journal is used
        yield known


def sync(folder: Path) -> None:
    """Waits until the disk has the names of the files in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(fields: dict[str, Any], line: bytes, schema: int) -> tuple[Entry, int]:
    """The record of a line, and the schema of its attempt; `schema` is that of the line before."""
    name = fields.pop("kind", None)
    if name not in _KINDS:
        raise ValueError(f"{unknown('kind of record', name, _KINDS)}; update repro")
    kind = _KINDS[name]
    if kind is Attempt:
        schema = fields.get("schema", 0)
        if type(schema) is not int or schema not in SCHEMAS:
            allowed = ", ".join(map(str, sorted(SCHEMAS)))
            raise ValueError(f"schema {shown(fields.get('schema'))} is not known (allowed: {allowed}); update repro")
    if fields.pop("crc32", None) is not None or schema > min(SCHEMAS):
        head, _, _ = line.rpartition(b',"crc32":')
        if line != head + _seal(head) + b"}\n":
            raise ValueError("its checksum does not match")
    time_ms = int(fields.pop("time_ms"))
    return Entry(time_ms, cast(Record, typed(kind, fields))), schema


def _seal(head: bytes) -> bytes:
    return f',"crc32":"{zlib.crc32(head):08x}"'.encode()


def _broken(where: str, number: int, error: Exception) -> ReproError:
    problem = " ".join(str(error).split())
    advice = "--fresh true sets it aside and trains the run again"
    return ReproError(f"{where}: line {number} is broken ({problem}); {advice}")
