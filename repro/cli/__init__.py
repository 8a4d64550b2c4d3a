"""The command line: the only place that prints, and that turns errors into one line and an exit code.

Every command imports what it needs when it runs, so that `repro --help` answers at once. Every option takes a value, switches
too (`--offline` alone is `--offline true`), for `mlflow run . -P name=value` passes undeclared parameters on as `--name value`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from repro import __version__
from repro.cli.place import leave_clone
from repro.cli.words import echo_line
from repro.errors import InputError, ReproError, unknown

_COMMANDS = {
    "demo": "sweeps",
    "paper": "sweeps",
    "reproducibility": "sweeps",
    "ablation": "sweeps",
    "experiment": "sweeps",
    "plan": "sweeps",
    "compare": "reports",
    "audit": "reports",
    "tabulate": "reports",
    "models": "catalogue",
    "data": "catalogue",
    "show": "runs",
    "verify": "runs",
    "sync": "journals",
    "status": "journals",
    "archive": "journals",
    "reap": "runs",
    "prune": "journals",
    "register": "runs",
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which they are met."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"repro.cli.{_COMMANDS[cmd_name]}"), cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with the nearest command named."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], _COMMANDS)
        return super().resolve_command(ctx, args)


@click.command(
    cls=_Lazy,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-"), "max_content_width": 110},
)
@click.version_option(__version__, prog_name="repro")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Train the variants of a published paper, track them in MLflow, and compare them with what was published.

    \b
    repro demo                          the whole pipeline, on small data
    repro ablation --fire removed       one part of the paper, on CIFAR-10
    repro experiment --study residual   any study, or your own: --study my.yaml
    repro compare --out report          tables, figures and verdicts

    Finished runs are never retrained. `mlflow ui` shows the runs.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, 1 for a failure, 2 for bad input, 130 when interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: `repro plan >&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without some character shows another one
    if sys.platform != "linux":
        return _fail(
            f"runs on Linux (this is {sys.platform}); on macOS and Windows use a container, WSL or a server", 2
        )
    try:
        Path.home()
    except RuntimeError:  # a user without a name in a container; MLflow cannot be imported without a home folder
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        if "MLFLOW_RUN_ID" in os.environ and (line := leave_clone()):
            click.echo(f"repro: {line}", err=True)
        _check_names(args if args is not None else sys.argv[1:])
        code = cli.main(args, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except ReproError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _fail(" ".join(error.format_message().split()) + _example(error), 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except (BrokenPipeError, SystemExit):  # which click makes of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has seen enough
        return 0
    except OSError as error:  # a full disk, a folder that is gone: what was recorded stays readable
        where = f"{error.filename}: " if error.filename else ""
        return _fail(
            f"{where}{error.strerror or error}; nothing recorded is lost; rerun the same command to continue", 1
        )


def _check_names(args: Sequence[str]) -> None:
    """Refuses names that are not UTF-8, which neither MLflow's stores nor JSON can hold."""
    with contextlib.suppress(FileNotFoundError):  # a working folder that is gone is said where it is needed
        args = [*args, str(Path.cwd())]
    for name in args:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{name!a}: is not valid UTF-8; rename the file or folder") from None


def _example(error: click.ClickException) -> str:
    """Where an option or argument is missing, the first example in the help of its command."""
    if not isinstance(error, click.MissingParameter) or error.ctx is None:
        return ""
    lines = [line.strip() for line in (error.ctx.command.help or "").splitlines()]
    example = next((line for line in lines if line.startswith("repro ")), "")
    return f" (example: {example.partition('  ')[0]})" if example else ""


def _fail(message: str, code: int) -> int:
    echo_line(f"repro: {message}", err=True)
    if code == 2 and "MLFLOW_RUN_ID" in os.environ:
        _name_refused(message)
    return code


def _name_refused(message: str) -> None:
    """Under `mlflow run`, the run that MLflow has made for a refused command says so, where the store can be reached."""
    from repro import api
    from repro.tracking.names import Tag

    with contextlib.suppress(ReproError, OSError):
        writer = api.writer(None)
        run_id = writer.attached()
        if run_id is not None and Tag.KIND not in writer.run(run_id).tags:
            writer.describe(run_id, message, f"{next(iter(sys.argv[1:]), 'repro')} (refused)")
