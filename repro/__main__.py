"""`python -m repro`, and the `repro` command."""

import os
import sys
from typing import NoReturn

from repro.cli import main


def run() -> NoReturn:
    """Runs the command line and ends the process with its exit code.

    Everything is written and closed by then; tearing down MLflow's and torch's modules would take a second on a busy
    machine, in which a sweep that was told to stop is expected to be gone.
    """
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
