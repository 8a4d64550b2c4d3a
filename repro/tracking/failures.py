"""What MLflow, the network, the database and the disk raise, as one line that says what to do."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from repro.errors import InputError, ReproError
from repro.tracking.credentials import hidden, shown

_REFUSED = r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED"
_LOGIN = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


class TrackingError(ReproError):
    """The store cannot be reached, read or written now. Nothing is lost: the journals hold it, and it can be tried again."""


@contextlib.contextmanager
def errors(uri: str) -> Iterator[None]:
    """Turns what MLflow, the network or the disk raise inside into `TrackingError`."""
    try:
        yield
    except ReproError:
        raise
    except (OSError, sqlite3.Error, ImportError) as error:  # an import: the driver of another database
        raise TrackingError(f"{shown(uri)}: {hidden(uri, _line(error))}{_remedy(error)}") from None
    except ValueError as error:
        if " for MLFLOW_" not in str(error):
            raise
        raise InputError(_line(error)) from None  # a variable of MLflow's that is not what it must be
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"mlflow", "sqlalchemy", "requests", "urllib3", "alembic"}:
            raise  # a mistake of ours, not of the store
        raise TrackingError(_explained(uri, error)) from None


def _remedy(error: Exception) -> str:
    """What to do about a driver that is missing or a sqlite file that is damaged; "" for any other error."""
    if isinstance(error, ModuleNotFoundError):
        return "; install the database's driver, or name another store (MLFLOW_TRACKING_URI)"
    if not re.search("malformed|not a database", str(error)):
        return ""
    return "; put back a copy, or move it away: `repro sync` makes it anew from the journals"


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\n", 1)[0].split())[:300] or type(error).__name__


def _explained(uri: str, error: Exception) -> str:
    line, text, server, uri = hidden(uri, _line(error)), str(error), urlparse(uri), shown(uri)
    if uri.startswith("http") and ("failed with exception" in text or "failed with timeout" in text):
        reason = (
            "connection refused" if "refused" in text else "timed out" if "timed out" in text else "connection failed"
        )
        remedy = "start it"
        if server.scheme in getproxies() and server.hostname and not proxy_bypass(server.hostname):
            remedy = (
                f"a proxy is set ({server.scheme.upper()}_PROXY): except the server with NO_PROXY={server.hostname}"
            )
        return (
            f"tracking server {uri} does not answer ({reason}); {remedy}, or name another store (MLFLOW_TRACKING_URI)"
        )
    if refused := re.search(_REFUSED, text if uri.startswith("http") else ""):
        what = "asks for a login" if refused[0] in {"401", "UNAUTHENTICATED"} else "does not let this login do that"
        return f"tracking server {uri} {what} ({refused[0]}); {_LOGIN}"
    if "must be in the 'active' state" in line and (run := re.search(r"[0-9a-f]{32}", line)):
        return f"{uri}: run {run[0]} is deleted there; `mlflow runs restore --run-id {run[0]}` brings it back"
    if "out-of-date database schema" in line:
        found = line.partition("found version ")[2].partition(",")[0]
        return (
            f"{uri}: its schema {found} is not that of the installed mlflow;"
            f" back it up and run `mlflow db upgrade {uri}`, or install the newer mlflow that wrote it"
        )
    return f"{uri}: {line}{_remedy(error)}"
