"""Train, track and compare the variants of a published paper; `repro.load()` reads what was tracked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.api import Store

__all__ = ["load"]
__version__ = "0.1.0"


def load(uri: str | None = None) -> Store:
    """The runs, tables, claims and models of a tracking store; None is $MLFLOW_TRACKING_URI, else mlflow.db.

    Raises:
        InputError: not the URI of a store, or a database file that does not exist.
        TrackingError: the store cannot be read.
    """
    from repro.api import Store

    return Store(uri)
