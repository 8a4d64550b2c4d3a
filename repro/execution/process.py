"""How this code is started in a process of its own, whatever lies in the working folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PROJECT = Path(__file__).parent.parent.parent
# -P keeps the working folder from the front of the path, where its files would stand in for the standard library's. This
# code's tree goes before what is installed, a user's own modules in the working folder come last.
_START = """
import importlib, os, sys
module, tree = sys.argv[1:3]
if tree:
    sys.path.insert(next((at for at, place in enumerate(sys.path) if "-packages" in place), len(sys.path)), tree)
sys.path.append(os.getcwd())
del sys.argv[1:3]
sys.exit(importlib.import_module(module).main())
"""


def command(module: str, *words: str) -> list[str]:
    """Calls the `main` of a module of this code with this interpreter, whatever lies in the working folder."""
    tree = str(_PROJECT) if (_PROJECT / "pyproject.toml").is_file() else ""  # else this code is installed
    return [sys.executable, "-P", "-c", _START, module, tree, *words]


def variables(threads: int) -> dict[str, str]:
    """The environment of a process that trains: this one's, without MLflow's, and with what its digits depend on."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # GPUs are counted as nvidia-smi counts them
    if env.get("CUBLAS_WORKSPACE_CONFIG") not in {":4096:8", ":16:8"}:  # those with which a GPU repeats its products
        env["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return env
