"""The options that the training commands share, and how they become a plan and the settings of a sweep."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from repro.errors import InputError, unknown

if TYPE_CHECKING:
    from repro.execution.settings import Settings
    from repro.studies import Plan
    from repro.study import Study

_Command = TypeVar("_Command", bound=Callable[..., Any])

DATASET = "cifar10, cifar100, mnist, fashion_mnist, svhn, digits (embedded, small), or imagefolder:PATH."
_SETTINGS = {
    "dataset": "data.dataset",
    "folds": "data.folds",
    "epochs": "training.epochs",
    "patience": "training.patience",
    "batch_size": "training.batch_size",
}
"""Option -> the setting that it puts on every run."""


class _Setting(click.Option):
    """An option whose value "", which MLproject passes on where nothing was given, is none: the default counts."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, click.core.ParameterSource]:
        """The value, and where it is from."""
        return super().consume_value(ctx, {name: value for name, value in opts.items() if value != ""})


class Choice(click.Choice[str]):
    """One of a few words; the nearest one is named for any other."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word."""
        if value not in self.choices:
            raise unknown(param.opts[0] if param else "value", value, self.choices)
        return str(value)


class Folder(click.types.StringParamType):
    """A path: `~` is the user's folder, and an empty one is none."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path as it is meant."""
        from repro.validation import expanded

        if not value.strip():
            raise InputError(f"{param.opts[0] if param else 'folder'} is empty (allowed: a path)")
        return str(expanded(value))


def _all(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    return lambda command: reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def switch(flag: str, default: bool, text: str) -> Callable[[_Command], _Command]:
    """A switch that may be given alone, or with a value as MLproject passes it: `--offline`, `--offline false`."""
    return click.option(flag, type=bool, is_flag=False, flag_value=True, default=default, show_default=True, help=text)


data_dir = click.option("--data-dir", type=Folder(), default="data", show_default=True, help="Folder of the data sets.")
runs_dir = click.option("--runs-dir", type=Folder(), default="runs", show_default=True, help="Folder of the journals.")
experiment = click.option(
    "--experiment", help="MLflow experiment.  [default: $MLFLOW_EXPERIMENT_NAME, or squeezenet-repro]"
)
models = click.option(
    "--models",
    type=Choice(["best", "all", "none"]),
    default="best",
    envvar="REPRO_MODELS",
    show_default=True,
    help="Runs whose weights become a model in MLflow: each variant's best run, all, or none  [env: $REPRO_MODELS].",
)
tracking_uri = click.option("--tracking-uri", help="MLflow's store.  [default: $MLFLOW_TRACKING_URI, or mlflow.db]")
as_json = click.option(
    "--json", "as_json", type=bool, is_flag=False, flag_value=True, default=False, help="Print JSON instead."
)

running = _all(
    data_dir,
    click.option(
        "--workers", default="auto", show_default=True, help="Concurrent runs; auto: one per core, or one on a GPU."
    ),
    click.option(
        "--executor",
        default="local",
        show_default=True,
        help="Where to compute the runs: local, slurm, or an entry of executors.toml.",
    ),
    switch("--wait", True, "Wait for the runs; false exits once their Slurm jobs are submitted."),
    click.option("--threads", default=1, show_default=True, help="Threads per run."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N."),
    switch("--deterministic", True, "Bit-identical results on CUDA."),
    switch("--fresh", False, "Retrain runs that already have results."),
    switch("--offline", False, "Train without MLflow; publish the runs later with `repro sync`."),
    click.option("--checkpoint-seconds", default=30.0, show_default=True, help="Minimum seconds between checkpoints."),
    click.option(
        "--store-patience",
        default=60.0,
        show_default=True,
        help="Seconds to wait at the end for a tracking store that makes no progress.",
    ),
    experiment,
    models,
    runs_dir,
    tracking_uri,
)
"""How the runs are computed; nothing here changes their results on one machine."""


def training(
    *, dataset: str | None = None, seeds: str = "0,1,2", epochs: int | None = None
) -> Callable[[_Command], _Command]:
    """What is asked of every run: data, seeds, budget, and any setting by name. What is not given is the study's."""

    def setting(flag: str, default: str | int | None, otherwise: object, text: str) -> Callable[[Any], Any]:
        text += "" if default is not None else f"  [default: {otherwise}, or the study's]"
        kind = click.STRING if isinstance(otherwise, str) else click.INT
        return click.option(flag, cls=_Setting, type=kind, default=default, show_default=default is not None, help=text)

    return _all(
        setting("--dataset", dataset, "cifar10", DATASET),
        click.option("--seeds", default=seeds, show_default=True, help="Seeds as a list or range: 0,3 or 0-9."),
        click.option(
            "--folds",
            cls=_Setting,
            type=click.INT,
            help="Number of folds for cross-validation.  [default: the study's]",
        ),
        setting("--epochs", epochs, 100, "Maximum epochs per run."),
        setting("--patience", None, 15, "Early stopping: epochs without a better validation accuracy."),
        setting("--batch-size", None, 50, "Batch size."),
        click.option(
            "--set", "overrides", default="", help="Settings for every run: optimizer.lr=0.01,training.precision=bf16."
        ),
    )


def make_plan(chosen: Sequence[tuple[Study, Sequence[str]]], asked: dict[str, Any], name: str | None = None) -> Plan:
    """The plan that the options of `training` ask for; a data set whose digest only its files tell is prepared."""
    from repro import declarations, studies
    from repro.cli import prepared
    from repro.datasets import FOLDER
    from repro.networks import SqueezeNetSpec
    from repro.spec import RunSpec, flatten

    overrides = declarations.parse_overrides(asked["overrides"])
    usual = RunSpec(model=SqueezeNetSpec(name="squeezenet"))
    for bare in overrides:  # "residual" without its group
        if known := [field for field in flatten(usual) if field.endswith(f".{bare}")]:
            raise InputError(f"set: unknown setting {bare!r}; did you mean {known[0]!r}?")
    given: dict[str, Any] = {}
    for option, setting in _SETTINGS.items():
        value = asked[option]
        if value is None or (setting in overrides and _is_default(option)):
            continue
        if overrides.get(setting, value) != value:
            flag = f"--{option.replace('_', '-')} {value}"
            raise InputError(f"{flag} and --set {setting}={overrides[setting]} contradict each other; give one of them")
        given[setting] = value
    declared = {name: value for study, _ in chosen for name, value in study.data.items()}
    overrides = given | overrides
    if not str((declared | overrides).get("data.dataset", "")).startswith(FOLDER):
        declared.pop("data.image_size", None)  # which is for a folder of images
    overrides = declared | overrides
    data = prepared.needed(overrides, Path(asked["data_dir"]))
    seeds = declarations.parse_seeds(asked["seeds"])
    wanted = studies.plan(chosen, seeds=seeds, overrides=overrides, data=data, name=name)
    prepared.try_networks(wanted)
    return wanted


def _is_default(option: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is click.core.ParameterSource.DEFAULT


def make_settings(asked: dict[str, Any], plan: Plan) -> Settings:
    """The settings that the options of `running` ask for, with the data prepared."""
    from repro.cli import prepared
    from repro.execution.executors.entries import chosen
    from repro.execution.settings import Settings

    executor = chosen(asked["executor"])
    if executor is None and not asked["wait"]:
        raise InputError(
            "wait: false needs an executor whose jobs outlive the sweep (allowed: true, or --executor slurm)"
        )
    if executor is not None and shutil.which("sbatch") is None:
        raise InputError("executor: slurm needs the command sbatch (run this on a login node of the cluster)")
    workers = asked["workers"]
    if workers != "auto" and not (workers.isdecimal() and 1 <= int(workers) <= 1024):
        raise InputError(f"workers: {workers!r} is not a number of concurrent runs (allowed: auto, 1 to 1024)")
    if not 1 <= asked["threads"] <= 1024:
        raise InputError(f"threads: {asked['threads']} is out of range (allowed: 1 to 1024)")
    device = asked["device"]
    if device not in {"cpu", "cuda"} and not (device.startswith("cuda:") and device[5:].isdecimal()):
        raise InputError(f"device: {device!r} is not known (allowed: cpu, cuda, cuda:0, cuda:1 ...)")
    for name in ("checkpoint_seconds", "store_patience"):
        if not asked[name] >= 0:
            flag = name.replace("_", "-")
            raise InputError(f"{flag}: {asked[name]} is not a number of seconds (allowed: 0 or more)")
    return Settings(
        cache=prepared.cache_of(plan.runs[0].spec.data, Path(asked["data_dir"])),
        runs=Path(asked["runs_dir"]),
        device=device,
        workers=None if workers == "auto" else int(workers),
        threads=asked["threads"],
        deterministic=asked["deterministic"],
        fresh=asked["fresh"],
        offline=asked["offline"],
        uri=asked["tracking_uri"],
        experiment=asked["experiment"] or None,
        models=asked["models"],
        checkpoint_seconds=asked["checkpoint_seconds"],
        patience_seconds=asked["store_patience"],
        executor=executor,
        wait=asked["wait"],
    )
