"""The load of the machine during a sweep, measured and stored by MLflow itself."""

from __future__ import annotations

from repro.errors import ReproError
from repro.tracking.store import Store


def measure(store: Store, run_id: str) -> None:
    """Stores processor, memory, disk, network and GPU load with a run while it is RUNNING.

    Only where MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING asks for it; MLflow's other variables set the interval.

    Raises:
        ReproError: a package that MLflow needs for it is not installed.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():  # type: ignore[no-untyped-call]
        return
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=store.uri)  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise ReproError(
            f"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is set, but {error.name} is not installed; no system metrics are stored"
        ) from None
    monitor.start()  # type: ignore[no-untyped-call]
