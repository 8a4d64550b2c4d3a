"""What set-up does once, so that a plain `mlflow run .` works at once: `python -m repro.tracking.project`.

MLflow looks for the environment of a project under a name made from its pins, and builds it with pyenv where it is
missing. Set-up links the environment it has just made under that name, writes the ignore rules of the tracking store into
`mlruns/`, and creates the store, since several processes that create one at a time stumble over each other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow.utils.environment import _PythonEnv
from mlflow.utils.virtualenv import _get_mlflow_virtualenv_root, _get_virtualenv_name

from repro.tracking.store import connect


def link_environment(project: Path, environment: Path) -> Path:
    """Links `environment` as the one that `mlflow run` takes for `project`; returns the link.

    An environment that MLflow has built itself is left as it is: it has the same pins.
    """
    root = Path(str(_get_mlflow_virtualenv_root()))  # type: ignore[no-untyped-call]
    root.mkdir(parents=True, exist_ok=True)
    pins = _PythonEnv.from_yaml(project / "python_env.yaml")  # type: ignore[no-untyped-call]
    link = root / str(_get_virtualenv_name(pins, project))  # type: ignore[no-untyped-call]
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(environment.absolute(), target_is_directory=True)
    return link


def ignore_store(project: Path) -> Path:
    """Writes the ignore rules of the store into `mlruns/.gitignore`, where it ignores itself as well."""
    rules = project / "mlruns" / ".gitignore"
    rules.parent.mkdir(exist_ok=True)
    rules.write_text((project / "mlruns.gitignore").read_text() + "*\n")
    return rules


if __name__ == "__main__":
    here = Path(__file__).parent.parent.parent
    link_environment(here, Path(sys.prefix))
    ignore_store(here)
    connect(None)
