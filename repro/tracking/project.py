"""What set-up does once, so that a plain `mlflow run .` works at once: `python -m repro.tracking.project`.

MLflow looks for the environment of a project under a name made from its pins, in a folder that all projects of a user
share, and builds it with pyenv where it is missing. Set-up gives the environment that it has just made such a folder of
its own, and links it there under that name; writes the ignore rules of the tracking store into `mlruns/`; and creates the
store, since several processes that create one at a time stumble over each other.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from mlflow.utils.environment import _PythonEnv
from mlflow.utils.virtualenv import _get_virtualenv_name

from repro.tracking.store import connect

_AT_START = "import os, sys; os.environ.setdefault('MLFLOW_ENV_ROOT', os.path.join(sys.prefix, 'mlflow'))\n"
"""Python runs this line of a .pth file whenever it starts in the environment: MLflow then looks in <environment>/mlflow."""


def link_environment(project: Path, environment: Path, root: Path) -> Path:
    """Links `environment` as the one that `mlflow run` takes for `project` where MLFLOW_ENV_ROOT is `root`; returns the link.

    An environment that MLflow has built there itself is left as it is: it has the same pins.
    """
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


def main() -> None:
    """Sets up the project that this file belongs to, in the environment that runs it."""
    project, environment = Path(__file__).parent.parent.parent, Path(sys.prefix)
    Path(sysconfig.get_path("purelib"), "squeezenet_repro_mlflow.pth").write_text(_AT_START)
    own = environment / "mlflow"
    for root in {own, Path(os.environ.get("MLFLOW_ENV_ROOT", own))}:
        link_environment(project, environment, root)
    ignore_store(project)
    connect(None)


if __name__ == "__main__":
    main()
