"""The connection to a tracking store: which one, made ready once, and its failures as one line each.

Which store: the URI given, else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder, so that
`mlflow run` and `mlflow ui` without a flag agree with it. Which experiment: the name given, else MLFLOW_EXPERIMENT_ID
(which `mlflow run` sets), else MLFLOW_EXPERIMENT_NAME, else one named after the project. mlflow is imported when a store
is opened, not before (it takes a second).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from repro import locks
from repro.errors import InputError
from repro.tracking import views
from repro.tracking.credentials import link, shown
from repro.tracking.failures import TrackingError, errors
from repro.tracking.places import Moved, moved, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT = "squeezenet-repro"
"""The experiment of runs for which no other is named."""
PROBE_SECONDS = 8
"""How long a tracking server may take to answer at all."""
_SCHEMES = {"http", "https", "postgresql", "mysql", "mssql"}
"""What a URI may begin with beside sqlite:/// and databricks; plugins of MLflow add theirs."""
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""What is wrong with a path and not with the disk."""

_EXPERIMENT_TAGS = {
    "mlflow.note.content": "Variants of a published comparison of SqueezeNet and AlexNet, trained by `repro`: a parent run"
    " for each sweep, a child for each variant and seed. To compare, group by `repro.variant` and `repro.setting`.",
    **views.TAGS,
}

_SETTINGS = {
    # MLflow retries for about four minutes; here the journals keep everything, so a failure is said at once and tried
    # again later. Without retries no request is sent twice either: a repeated creation would double a run.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment of MLflow in this process, where the user has not set it."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open tracking store."""

    uri: str
    client: MlflowClient
    experiment_id: str
    """The experiment that new runs go to."""
    database: Path | None
    """The file of a sqlite store."""
    inode: tuple[int, int] | None
    """Device and inode of that file when it was opened."""
    moved: Moved | None = None
    """Where a sqlite store keeps its files, if that is not where it says."""

    def settle(self) -> list[str]:
        """Records where the files are, for a store that is written to; returns what was changed, a line each."""
        changed = []
        while self.database is not None and (found := moved(self.database)) is not None:
            with self.errors():
                changed.append(found.record(self.database))
        return changed

    def places(self, artifact_uri: str) -> list[str]:
        """Where the files of a run may be, which is recorded at `artifact_uri`: the likeliest place first."""
        return [*([self.moved.place(artifact_uri)] if self.moved else []), artifact_uri]

    @property
    def link(self) -> str:
        """Where MLflow's UI shows the runs of the experiment; for a file, where `mlflow ui` would show them."""
        address = self.uri if self.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{link(address)}/#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what MLflow, the network or the disk raise inside into `TrackingError`; a sqlite file must still be there."""
        self._check_file()
        try:
            with errors(self.uri):
                yield
        except TrackingError:
            self._check_file()  # it was deleted meanwhile: that is the reason, whatever sqlite made of it
            raise

    def _check_file(self) -> None:
        if self.database is not None and _inode(self.database) != self.inode:
            # sqlite would go on writing into the deleted file, and nobody would ever see it
            raise TrackingError(f"{self.uri}: the database file was deleted or replaced; put it back, or start again")


def connect(uri: str | None = None, experiment: str | None = None, *, create: bool = True) -> Store:
    """Opens a store.

    Args:
        uri: the store; None is MLFLOW_TRACKING_URI, else mlflow.db in the working folder.
        experiment: name of the experiment that new runs go to; None is that of the environment, else `EXPERIMENT`.
        create: whether to create a sqlite file or an experiment that does not exist, as what writes runs does.

    Raises:
        InputError: a URI that cannot be one of a store, or a file or an experiment that does not exist.
        TrackingError: a server that does not answer, a file that is no database, a folder that cannot be written,
            a schema that the installed MLflow does not know.
    """
    uri = resolve(uri) if create else existing(uri)
    database = sqlite_path(uri)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # MLflow's own use of older calls, at its import
        if database is not None:
            stack.enter_context(_prepared(database, uri))
        stack.enter_context(errors(uri))
        from mlflow import MlflowClient

        if uri.startswith(("http://", "https://")):
            _probe(uri)
        client = MlflowClient(tracking_uri=uri)
        experiment_id = _experiment(client, uri, experiment, create)
    if database is None:
        return Store(uri, client, experiment_id, None, None)
    return Store(uri, client, experiment_id, database, _inode(database), moved(database))


def resolve(uri: str | None) -> str:
    """The URI meant by `uri`, absolute where it is a sqlite file's.

    Raises:
        InputError: not a URI of a store that can be used.
    """
    given = (uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI).strip() or DEFAULT_URI
    if (path := sqlite_path(given)) is not None:
        return _sqlite_uri(path)
    scheme, separator, _ = given.partition("://")
    if scheme == "databricks":
        return given  # with or without a profile's name; MLflow says what is not configured
    if not separator or not (
        scheme.partition("+")[0] in _SCHEMES or metadata.entry_points(group="mlflow.tracking_store", name=scheme)
    ):
        raise InputError(
            f"tracking URI {shown(given)!r} is not a store that MLflow keeps runs in"
            " (examples: sqlite:///mlflow.db or http://127.0.0.1:5000)"
        )
    user, _, _ = given.partition("://")[2].rpartition("@")
    if set(user) & set("/?#@ "):  # URL parsers would end the server's name there
        raise InputError(
            f"tracking URI {shown(given)!r}: its user or password has characters that must be written as codes"
            " (/ as %2F, ? as %3F, # as %23, @ as %40)"
        )
    return given.rstrip("/") if scheme in {"http", "https"} else given


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a sqlite store's file; None for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    name = unquote(uri.removeprefix("sqlite:///").partition("?")[0])
    if name in {"", ":memory:"}:
        raise InputError(f"tracking URI {uri!r} names no file (example: sqlite:///mlflow.db)")
    return Path.cwd() / name


def existing(uri: str | None) -> str:
    """The same for a store that is only read.

    Raises:
        InputError: not a URI of a store that can be used, or a sqlite file that is not there.
    """
    uri = resolve(uri)
    if absent(uri):
        raise InputError(
            f"{uri}: no such file; train something first, `repro sync` what was trained with --offline,"
            " or name the store (MLFLOW_TRACKING_URI)"
        )
    return uri


def absent(uri: str | None) -> bool:
    """Whether a store is a sqlite file that is not there."""
    database = sqlite_path(resolve(uri))
    return database is not None and not database.is_file()


def _sqlite_uri(path: Path) -> str:
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


@contextlib.contextmanager
def _prepared(database: Path, uri: str) -> Iterator[None]:
    """Holds the database's lock, in which a missing one is created and MLflow brings an older one up to date."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with locks.alone(database.with_name(f"{database.name}.lock")):
            if database.exists():
                _check(database)
            else:
                _create(database, uri)
            yield
            unread = Path(uri.removeprefix("sqlite:///")).parent
            if unread != database.parent:
                with contextlib.suppress(OSError):  # MLflow makes an empty folder of the name with its codes
                    os.removedirs(unread)
    except OSError as error:
        kind = InputError if error.errno in _NOT_WRITABLE else TrackingError
        raise kind(
            f"{uri}: cannot be written ({error.strerror}); name a store in a folder that can (MLFLOW_TRACKING_URI)"
        ) from None


def _check(database: Path) -> None:
    """Says at once what MLflow would find out in two minutes of trying again."""
    with database.open("ab"):
        pass
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=PROBE_SECONDS)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "experiments" in tables and not _tables() <= tables:  # MLflow is about to upgrade it
                query = "SELECT version_num FROM alembic_version"
                versions = connection.execute(query) if "alembic_version" in tables else ()
                kept = database.with_name("-".join([f"{database.name}.former", *(version for (version,) in versions)]))
                if not kept.exists():  # else an upgrade was interrupted, and the copy is from before it
                    partial = kept.with_name(f"{kept.name}.partial")
                    partial.unlink(missing_ok=True)
                    with contextlib.closing(sqlite3.connect(partial)) as copy:
                        connection.backup(copy)
                    partial.replace(kept)
                logging.getLogger(__name__).warning(
                    "%s is of an earlier MLflow and is brought up to date; as it was, it is kept as %s", database, kept
                )
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise TrackingError(f"{database}: another program has been writing to it; try again") from None
        with errors(str(database)):
            raise


def _tables() -> set[str]:
    """The tables that the installed MLflow wants in a store."""
    from mlflow.store.tracking.sqlalchemy_store import SqlRun  # type: ignore[attr-defined]

    return set(SqlRun.metadata.tables)


def _create(database: Path, uri: str) -> None:
    """Makes a new database under another name and links it to its own when it is complete.

    So no process, ours or another of MLflow, ever meets half a schema, and a kill leaves none.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    fresh = database.with_name(f"{database.name}.new")
    for leftover in (fresh, fresh.with_name(f"{fresh.name}-journal")):
        leftover.unlink(missing_ok=True)
    with errors(uri):
        store = SqlAlchemyStore(_sqlite_uri(fresh), f"{quoted(Path.cwd())}/mlruns")  # type: ignore[no-untyped-call]
        store.engine.dispose()
        SqlAlchemyStore._engine_map.pop(store.db_uri)
        if uri in SqlAlchemyStore._engine_map:  # it may hold a connection to a former file of this name
            SqlAlchemyStore._engine_map[uri].dispose()
    try:
        database.hardlink_to(fresh)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links; others of ours wait for the lock meanwhile
        fresh.replace(database)
    fresh.unlink(missing_ok=True)


def _probe(uri: str) -> None:
    """Asks the server for any answer at all, within `PROBE_SECONDS`."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    http_request(credentials, "/version", "GET", timeout=PROBE_SECONDS, raise_on_status=False)  # type: ignore[no-untyped-call]


def _experiment(client: MlflowClient, uri: str, given: str | None, create: bool) -> str:
    """Id of the experiment that new runs go to; one that is named and does not exist is created, as `mlflow run` does."""
    from mlflow.exceptions import MlflowException

    number = "" if given else os.environ.get("MLFLOW_EXPERIMENT_ID", "")
    name = given or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    if given and os.environ.get("MLFLOW_RUN_ID"):
        raise InputError(f"--experiment {given!r}: is chosen by `mlflow run`; use its --experiment-name instead")
    if number and not number.isdecimal():
        raise InputError(
            f"MLFLOW_EXPERIMENT_ID: {number!r} is not the id of an experiment (allowed: a number, as MLflow's pages show"
            " it; MLFLOW_EXPERIMENT_NAME takes a name)"
        )
    try:
        found = client.get_experiment(number) if number else client.get_experiment_by_name(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(f"{shown(uri)}: has no experiment with the id {number!r} (MLFLOW_EXPERIMENT_ID)") from None
    if found is None and not create:
        return ""
    if found is None:
        database = sqlite_path(uri)
        before = database and moved(database)
        try:
            made = client.create_experiment(name, tags=_EXPERIMENT_TAGS if name == EXPERIMENT else None)
            if database and not before and (misread := moved(database)):  # MLflow has put a % into its place
                misread.record(database)
            return made
        except MlflowException as error:  # another sweep may have been faster
            found = client.get_experiment_by_name(name)
            if found is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"{shown(uri)}: experiment {found.name!r} is deleted; `mlflow experiments restore -x {found.experiment_id}`"
            " brings it back, --experiment or MLFLOW_EXPERIMENT_NAME names another one"
        )
    return found.experiment_id
