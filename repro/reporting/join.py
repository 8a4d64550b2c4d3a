"""The join: what the sweeps planned, with the finished runs that answer it, one table a study.

    Contents ─► settings ─► tables(): one a study, its rows in the study's order, each with its runs by fold and seed

Plans meet runs by key alone, so a run trained for one study serves every row that asks the same. A table never mixes
settings: data with its digest and what a command put on every variant are the same in all its rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from repro import studies as declared_studies
from repro.datasets import DataSpec, named
from repro.errors import InputError, unknown
from repro.published import Published
from repro.records import RESULT_METRICS
from repro.reporting.frame import REFERENCE, Beside, Row, Run
from repro.rows import Contents, RunRow
from repro.spec import PROTOCOL, Value, changes, flatten, hashed, merged, resolve, run_name
from repro.studies import Plan, PlannedRun
from repro.study import Elsewhere, Study


class Setting:
    """Data and protocol that all rows of a table share, with all that a store holds under them."""

    def __init__(self, values: Mapping[str, Value], finished: Mapping[str, Sequence[RunRow]], beside: Beside) -> None:
        """Without plans yet.

        Args:
            values: dotted name -> value.
            finished: key -> the finished runs of the store, the latest first.
            beside: how to fetch what rows do not hold.
        """
        self.values, self.finished, self.beside = values, finished, beside
        self.id = setting_id(values)
        """Eight hexadecimal digits: what `--setting` takes."""
        self.changes = changes(values)
        """How it differs from the declared setting, as `name=value`; empty where published numbers may be held against it."""
        data = f"{values['data.dataset']} ({str(values['data.digest'])[:8]})"
        self.words = ", ".join([data, *(change for change in self.changes if not change.startswith("data.dataset="))])
        """The setting in one line."""
        self.plans: list[Plan] = []
        """Newest first."""
        self.places: dict[str, int] = {}
        """Study -> place of its latest sweep among all sweeps of the store, 0 the newest."""
        self._rows: dict[str, Row | None] = {}

    @property
    def where(self) -> str:
        """Behind a sentence: the data set and the setting, where they are not the declared ones."""
        words = {
            "training.epochs": "an epoch limit of {}",
            "training.precision": "precision {}",
            "data.folds": "{} folds",
        }
        dataset = self.values["data.dataset"]
        others = [change.partition("=")[::2] for change in self.changes if not change.startswith("data.dataset")]
        told = [
            words.get(name, name.rpartition(".")[2].replace("_", " ") + " {}").format(value) for name, value in others
        ]
        return (f" on {dataset}" if dataset != DataSpec().dataset else "") + (
            f" with {', '.join(told)}" if told else ""
        )

    def differing(self, study: Study) -> tuple[str, ...]:
        """How it differs from what a study declares, as `name=value`: where it does, published numbers are left out."""
        declared = study.data
        if study.dataset is not None:
            declared["data.dataset"] = named(study.dataset, study.image_size or 32)
        return changes(self.values, declared)

    @cached_property
    def planned(self) -> Mapping[str, list[PlannedRun]]:
        """`study/variant` -> its planned runs, those of the newest plan first."""
        found: dict[str, list[PlannedRun]] = {}
        for run in (run for plan in self.plans for run in plan.runs):
            found.setdefault(f"{run.study}/{run.variant}", []).append(run)
        return found

    @cached_property
    def studies(self) -> Mapping[str, Study]:
        """Every planned study by its slug, as its newest plan declares it."""
        return {study.study: study for plan in reversed(self.plans) for study in plan.studies}

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every planned row and what it is compared with, each question once: with the runs of all rows that ask it."""
        planned = self.known(self.planned)
        found: dict[str, list[Row]] = {}
        for row in planned + self.known({REFERENCE, *(row.base for row in planned if row.base)} - self.planned.keys()):
            found.setdefault(row.question, []).append(row)
        return tuple(
            replace(rows[0], runs=tuple({run.record.key: run for row in rows for run in row.runs}.values()))
            for rows in found.values()
        )

    def row(self, name: str) -> Row | None:
        """The row `study/variant`, also of a study that was never swept here: its keys are known from its declaration.

        None for a row that no plan and no declaration knows.
        """
        if name not in self._rows:
            asked = self.planned.get(name) or self._declared(name)
            self._rows[name] = self._made(name, asked) if asked else None
        return self._rows[name]

    def known(self, names: Iterable[str]) -> list[Row]:
        """Those of some rows that a plan or a declaration knows."""
        return [row for name in names if (row := self.row(name)) is not None]

    def _made(self, name: str, wanted: Sequence[PlannedRun]) -> Row:
        newest = wanted[0]
        asked = [run for run in reversed(wanted) if run.spec.of(0, None) == newest.spec.of(0, None)]
        same = {(-1 if run.spec.data.fold is None else run.spec.data.fold, run.seed): run for run in asked}
        study = self.studies.get(newest.study) or declared_studies.load_base(newest.study, name)
        variant = _project().get(newest.study, study).variants.get(newest.variant) or study.variants.get(newest.variant)
        ordered = [same[place] for place in sorted(same)]
        fits = not self.differing(study)
        return Row(
            study=newest.study,
            variant=newest.variant,
            title=newest.title,
            study_title=study.title,
            base=newest.against,
            note=variant.note if variant is not None and (fits or newest.published == Published()) else "",
            published=newest.published if fits else Published(),
            spec=ordered[0].spec,
            known=self.plans[0].known,
            runs=tuple(
                Run(self.finished[run.key][0], run.spec, self.beside) for run in ordered if run.key in self.finished
            ),
            missing=tuple(
                (run.spec.data.fold, run.seed)
                for run in ordered
                if name in self.planned and run.key not in self.finished
            ),
        )

    def _declared(self, name: str) -> list[PlannedRun]:
        """What a sweep of this setting would ask for `name`, under the seeds and folds planned here."""
        slug, _, variant = name.partition("/")
        try:
            study = self.studies.get(slug) or declared_studies.load_base(slug, name)
            if variant not in study.variants:
                return []
            settings = merged(declared_studies.settings(study, variant), self.plans[0].overrides)
            folded = self.plans[0].runs[0].spec.data.fold is not None
            spec = resolve(settings | ({"data.fold": 0} if folded else {}), name, self.plans[0].data)
        except InputError:  # not declared here, or it does not have a setting that was put on every variant
            return []
        against = declared_studies.compared_with(study, variant)
        splits = dict.fromkeys((run.seed, run.spec.data.fold) for plan in self.plans for run in plan.runs)
        return [declared_studies.planned_run(study, variant, spec.of(seed, fold), against) for seed, fold in splits]

    def answers(self, slug: str) -> bool:
        """Whether some row of a study has a finished run."""
        return any(run.key in self.finished for plan in self.plans for run in plan.runs if run.study == slug)

    def table(self, slug: str, others: Sequence[Setting]) -> Table:
        """The rows of a study that are planned or have runs; `others` are the settings that it was swept in besides."""
        study = self.studies[slug]
        order = [f"{slug}/{variant}" for variant in study.variants]
        order += [name for name in self.planned if name.startswith(f"{slug}/") and name not in order]
        known = [row for row in self.known(order) if row.runs or row.name in self.planned]
        rows = [self._compared(row) for row in known]
        notes = [
            f"{study.title} was also run in another setting: {other.words} (--setting {other.id})" for other in others
        ]
        printed = any(variant.published != Published() for variant in study.variants.values())
        if printed and (differing := self.differing(study)):
            notes.append(f"published numbers are left out: these runs were trained with {', '.join(differing)}")
        return Table(study, self, tuple(rows), (*notes, *(note for row in rows for note in self._notes(row))))

    def _compared(self, row: Row) -> Row:
        """The row, compared with nothing where its base asks the same (the default is a row of many tables)."""
        base = self.row(row.base) if row.base else None
        return row if base is not None and base.question != row.question else replace(row, base=None)

    def _notes(self, row: Row) -> Iterator[str]:
        if row.missing and row.runs:
            told = [run_name("", seed, fold).strip() for fold, seed in row.missing]
            yield f"{row.title}: no finished run yet for {', '.join(told)}"
        own = [
            f"{name}={value}"
            for name, value in flatten(row.spec).items()
            if name.startswith(("data.", "training.")) and name != "data.fold" and value != self.values[name]
        ]
        if own:
            yield f"{row.title}: declared with {', '.join(own)}"
        if any(run.spec.of(0, None) != row.spec.of(0, None) for run in self.planned.get(row.name, ())):
            yield f"{row.title}: declared differently in an earlier sweep, whose runs are left out"
        for run in row.runs:
            record, who = run.record, run_name(f"{row.title},", run.seed, run.spec.data.fold)
            if (same := len(self.finished[record.key])) > 1:
                yield f"{who}: {same} finished runs of key {record.key}; the latest, {record.run_id}, is used"
            if record.outcome == "diverged":
                yield f"{who}: diverged (a loss was not finite)"
            if record.mixed:
                yield f"{who}: resumed after a change of {record.mixed.replace(', ', ' and ')}"
            if lacking := [name for name in RESULT_METRICS if run.metric(name) is None]:
                yield f"{who}: {', '.join(lacking)} missing or not finite; left out"
            if record.curve is not None and len(set(record.curve.epoch.tolist())) != len(record.curve.epoch):
                yield f"{who}: some epochs were recorded twice"


@dataclass(frozen=True)
class Table:
    """One study in one setting; its rows in the study's order."""

    study: Study
    setting: Setting
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What the reader must know beside the numbers, a line each."""

    def base(self, row: Row) -> Row | None:
        """The row that `row` is compared with."""
        return None if row.base is None else self.setting.row(row.base)

    @property
    def printed(self) -> bool:
        """Whether its rows are rows of the paper, whatever an own study or an older plan says of itself."""
        return self.study.study in paper_studies()

    @property
    def whole(self) -> float | None:
        """Size in MiB of AlexNet, which sizes are relative to: as trained here, else, in tables of the paper, as published."""
        reference = self.setting.row(REFERENCE)
        if reference is not None and reference.size:
            return reference.size
        owner, _, variant = REFERENCE.partition("/")
        return _project()[owner].variants[variant].published.size if self.printed else None

    @property
    def elsewhere(self) -> tuple[Elsewhere, ...]:
        """Models of others: as the project declares them, whatever an older plan says, else as the own study does."""
        return _project().get(self.study.study, self.study).elsewhere

    @property
    def answered(self) -> bool:
        """Whether some row has a finished run."""
        return any(row.runs for row in self.rows)


@cache
def _project() -> Mapping[str, Study]:
    """The studies that come with the project, as they are declared now."""
    return {study.study: study for study in declared_studies.declared()}


@cache
def paper_studies() -> frozenset[str]:
    """The declared studies that the paper reports: those with a section of it, and numbers that it publishes for them."""
    unpublished = Published()
    return frozenset(
        study.study
        for study in _project().values()
        if study.section and any(variant.published != unpublished for variant in study.variants.values())
    )


def _settings(contents: Contents, beside: Beside) -> list[Setting]:
    """The settings that a store holds, that of the latest sweep first."""
    if not contents.sweeps:
        raise InputError(
            f"{contents.uri}: has no sweep yet; train one first (example: mlflow run .), or, for runs from"
            " `repro sync`, rerun the command that trained them (finished runs are not retrained)"
            + "".join(f"; {note}" for note in contents.notes)
        )
    finished: dict[str, tuple[RunRow, ...]] = {}
    for run in sorted(contents.runs, key=lambda run: (run.ended_ms, run.started_ms, run.run_id), reverse=True):
        finished[run.key] = (*finished.get(run.key, ()), run)
    found: dict[str, Setting] = {}
    newest_first = sorted(contents.sweeps, key=lambda sweep: (sweep.started_ms, sweep.run_id), reverse=True)
    for place, plan in enumerate(sweep.plan for sweep in newest_first if sweep.plan.runs):
        values = setting_of(plan)
        one = found.setdefault(setting_id(values), Setting(values, finished, beside))
        one.plans.append(plan)
        for study in plan.studies:
            one.places.setdefault(study.study, place)
    return list(found.values())


def tables(
    contents: Contents, studies: Sequence[str] | None = None, setting: str | None = None, beside: Beside | None = None
) -> tuple[Table, ...]:
    """One table a study, in the order of the paper: in the setting of the study's latest sweep, or in `setting`.

    Args:
        contents: what the store holds.
        studies: slugs of the studies wanted; None for every study that was swept.
        setting: id of a setting (`Setting.id`).
        beside: how to fetch what rows do not hold.

    Raises:
        InputError: the store is empty, or holds no such study or setting.
    """
    every = _settings(contents, beside or Beside())
    swept = {slug: study for one in every for slug, study in one.studies.items()}
    for slug in studies or ():
        if slug not in swept:
            raise unknown("study of the store", slug, swept)
    if setting is not None and setting not in (ids := [one.id for one in every]):
        raise unknown("setting", setting, ids)
    made = []
    for slug in sorted(dict.fromkeys(studies or swept), key=lambda slug: _paper_order(swept[slug])):
        holding = [one for one in every if slug in one.places]
        holding.sort(key=lambda one: (not one.answers(slug), one.places[slug]))
        chosen = next((one for one in holding if setting in {None, one.id}), None)
        if chosen is not None:
            made.append(chosen.table(slug, [one for one in holding if one is not chosen]))
        elif studies:
            allowed = ", ".join(one.id for one in holding)
            raise InputError(f"{slug} was not swept in setting {setting} (allowed: {allowed})")
    return tuple(made)


def keys(contents: Contents, studies: Sequence[str] | None = None) -> set[str]:
    """Keys of the finished runs behind the tables of some studies, those of the rows they are compared with included."""
    found = tables(contents, studies)
    rows = [row for table in found for row in table.rows]
    for table in found:
        rows += table.setting.known({REFERENCE, *(row.base for row in table.rows if row.base)})
    return {run.record.key for row in rows for run in row.runs}


def setting_of(plan: Plan) -> dict[str, Value]:
    """What all rows of a table share: the data, and the protocol with what was put on every variant.

    What a study's variants set themselves is theirs; a table has a note of it. Seeds and folds are no part of it.
    """
    return dict(PROTOCOL) | plan.setting | {"semantics": plan.runs[0].spec.semantics, "data.fold": None}


def setting_id(setting: Mapping[str, Value]) -> str:
    """Eight hexadecimal digits that name a setting: what `--setting` takes."""
    return hashlib.sha256(json.dumps(hashed(setting), sort_keys=True).encode()).hexdigest()[:8]


def _paper_order(study: Study) -> tuple[bool, int, bool, str]:
    return study.table is None, study.table or 0, study.study == "best", study.study
