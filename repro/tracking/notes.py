"""What MLflow's UI shows above the runs of a sweep, in Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import yaml

from repro import studies
from repro.datasets import FOLDER
from repro.networks import PythonSpec
from repro.rows import RunRow
from repro.studies import Plan, PlannedRun
from repro.tracking.runs import cut

_FLAGS = {"data.dataset": "--dataset", "data.folds": "--folds"}
"""Settings of a whole plan that have an option of their own; `--set` takes the others."""
_PUBLISHED = {
    "accuracy": "accuracy {:g}%",
    "accuracy_at_most": "accuracy at most {:g}%",
    "test_accuracy": "test accuracy {:g}%",
    "epochs": "best epoch {:g}",
    "epoch_seconds": "{:g} seconds an epoch",
    "size": "{:g} MiB",
}


def of_sweep(plan: Plan, reused: Mapping[str, str], journals: Collection[str]) -> str:
    """The description of a sweep before it has results: what it trains, and which runs it reuses."""
    runs = plan.unique
    there = {key: f"run {run_id}" for key, run_id in reused.items()} | dict.fromkeys(journals, "from its journal")
    lines = [
        f"{len(runs)} run{'s' * (len(runs) > 1)} of {plan.name}: trains {len(runs) - len(there)}, reuses {len(there)}"
    ]
    lines += [f"- {run.study}/{run.name}: {there[run.key]}" for run in runs if run.key in there]
    return cut("\n".join(lines))


def of_reused(plan: Plan, rows: Iterable[RunRow]) -> str:
    """The list of runs that a sweep has reused, each linked to its page; empty without one."""
    there = {row.key: f"#/experiments/{row.experiment_id}/runs/{row.run_id}" for row in rows}
    lines = [f"- [{run.study}/{run.name}]({there[run.key]})" for run in plan.unique if run.key in there]
    return "\n".join(["", "Reused, not trained again:", "", *lines, ""]) if lines else ""


def of_runs(plan: Plan) -> dict[str, str]:
    """Key -> description of a run: its title, the numbers published for it, what differs from its base, how to repeat it."""
    return {run.key: _of_run(plan, run) for run in plan.unique}


def _of_run(plan: Plan, run: PlannedRun) -> str:
    study = next(study for study in plan.studies if study.study == run.study)
    place = study.title if study.table is None else f"Table {study.table}, {study.title}"
    parts = [f"**{run.title}** ({place}), {run.spec.run_name('').strip()}. {study.question}"]
    for where, numbers in (("Published", dict(run.published)), ("In the running text", run.published.text)):
        told = [form.format(numbers[name]) for name, form in _PUBLISHED.items() if numbers.get(name) is not None]
        if told:
            parts.append(f"{where}: {', '.join(told)}.")
    variant = study.variants[run.variant]
    base = studies.based_on(study, run.variant)
    if variant.set:
        other = f"from `{base}`" if base else "from the defaults"
        parts.append(f"Differs {other}: " + ", ".join(f"`{_setting(*one)}`" for one in variant.set.items()) + ".")
    elif base:
        parts.append(f"The same network and training as `{base}`.")
    if variant.note:
        parts.append(f"Note: {variant.note}.")
    to_know = ["`--device` is to be added if environment.txt names another than cpu"]
    if _own(run):
        to_know.append(f"`{run.study}.yaml` stands for the path of the study's file")
    if isinstance(run.spec.model, PythonSpec):
        to_know.append(f"Python must find the module of `{run.spec.model.function}`")
    parts.append(f"To repeat it, at the commit of the tag `repro.commit`:\n\n    {command(plan, run)}")
    parts.append(f"In this command, {'; '.join(to_know)}.")
    parts.append(f"To train it again and compare every digit:\n\n    repro verify {run.key}")
    return cut("\n\n".join(parts))


def command(plan: Plan, run: PlannedRun) -> str:
    """The command that asks for one run of a plan; a plan does not know where the file of an own study lies."""
    words = ["repro", "experiment", "--study", f"{run.study}.yaml" if _own(run) else run.study]
    words += ["--variant", run.variant]
    words += ["--seeds", str(run.seed)]
    rest = []
    for name, value in plan.overrides.items():
        if name == "data.dataset" and plan.known.name.startswith(FOLDER) and plan.known.source:
            value = f"{FOLDER}:{plan.known.source}"
        if name in _FLAGS:
            words += [_FLAGS[name], str(value)]
        else:
            rest.append(_setting(name, value))
    return shlex.join([*words, *(["--set", ",".join(rest)] if rest else [])])


def _own(run: PlannedRun) -> bool:
    return not (studies.DECLARATIONS / f"{run.study}.yaml").is_file()


def _setting(name: str, value: Any) -> str:
    """A setting as `--set` reads it: `model.removed=[fire3, fire7]`."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return f"{name}={text}"
