"""The join: what the sweeps planned, with the finished runs that answer it, one table a study.

    Contents ─► scopes(): one a setting ─► tables(): one a study, its rows in the study's order, each with its runs by seed

Plans meet runs by key alone, so a run trained for one study serves every row that asks the same. A table never mixes
settings: data with its digest and what a command put on every variant are the same in all its rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from repro import studies as declared_studies
from repro.datasets import KnownData
from repro.errors import InputError, unknown
from repro.published import Published
from repro.records import RESULT_METRICS
from repro.rows import Contents, RunRow
from repro.spec import PROTOCOL, RunSpec, Value, changes, flatten, hashed, merged, resolve
from repro.studies import Plan, PlannedRun, Study

REFERENCE = "reproducibility/alexnet"
"""The row that sizes are compared with."""


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of a study in one setting."""

    study: str
    variant: str
    title: str
    against: str | None
    """`study/variant` that the row is compared with; None for a row that stands for itself."""
    note: str
    published: Published
    spec: RunSpec
    """Of the first seed and fold; the others' specs differ in nothing else."""
    known: KnownData
    """The data set that its runs see."""
    runs: tuple[RunRow, ...]
    """The finished runs, one a seed and fold, by seed and then by fold; empty where none is finished."""
    missing: tuple[int, ...]
    """The planned seeds without a finished run."""

    @property
    def name(self) -> str:
        """`study/variant`."""
        return f"{self.study}/{self.variant}"


@dataclass(frozen=True, slots=True)
class Table:
    """One study in one setting."""

    study: Study
    setting: Mapping[str, Value]
    setting_id: str
    rows: tuple[Row, ...]
    bases: Mapping[str, Row]
    """`study/variant` -> a row that others are compared with (and `REFERENCE`), in the same setting, of whatever study."""
    notes: tuple[str, ...]
    """What the reader must know beside the numbers, a line each."""


@dataclass(frozen=True)
class Scope:
    """All that a store holds under one setting."""

    setting: Mapping[str, Value]
    setting_id: str
    plans: tuple[Plan, ...]
    """The plans of this setting, newest first."""
    finished: Mapping[str, tuple[RunRow, ...]]
    """Key -> its finished runs, the latest first."""
    places: Mapping[str, int]
    """Study -> the place of its latest sweep here among all sweeps of the store, 0 the newest."""
    _rows: dict[str, Row | None] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def planned(self) -> Mapping[str, tuple[PlannedRun, ...]]:
        """`study/variant` -> its planned runs, those of the newest plan first."""
        found: dict[str, list[PlannedRun]] = {}
        for plan in self.plans:
            for run in plan.runs:
                found.setdefault(f"{run.study}/{run.variant}", []).append(run)
        return {name: tuple(runs) for name, runs in found.items()}

    @cached_property
    def studies(self) -> Mapping[str, Study]:
        """Every planned study by its slug, as its newest plan declares it."""
        return {study.study: study for plan in reversed(self.plans) for study in plan.studies}

    @cached_property
    def asked(self) -> tuple[tuple[int, int | None], ...]:
        """Every planned seed and fold."""
        asked = {(run.seed, run.spec.data.fold) for plan in self.plans for run in plan.runs}
        return tuple(sorted(asked, key=lambda one: (one[0], one[1] or 0)))

    def row(self, name: str) -> Row | None:
        """The row `study/variant`, also of a study that was never swept here: its key is known from its declaration.

        None for a row that no plan and no declaration knows.
        """
        if name not in self._rows:
            self._rows[name] = self._row(name)
        return self._rows[name]

    def _row(self, name: str) -> Row | None:
        planned = self.planned.get(name) or self._declared(name)
        if not planned:
            return None
        newest = planned[0]
        same = {
            (run.seed, run.spec.data.fold or 0): run
            for run in reversed(planned)
            if _question(run.spec) == _question(newest.spec)
        }
        keys = {asked: same[asked].key for asked in sorted(same)}
        finished = {asked: self.finished[key][0] for asked, key in keys.items() if key in self.finished}
        study = self.studies.get(newest.study) or declared_studies.load_base(newest.study, name)
        variant = study.variants.get(newest.variant)
        return Row(
            study=newest.study,
            variant=newest.variant,
            title=newest.title,
            against=newest.against,
            note=variant.note if variant is not None else "",
            published=newest.published,
            spec=same[min(same)].spec,
            known=self.plans[0].known,
            runs=tuple(finished.values()),
            missing=tuple(dict.fromkeys(asked[0] for asked in keys if asked not in finished)),
        )

    def answers(self, study: str) -> bool:
        """Whether some row of a study has a finished run."""
        return any(
            run.key in self.finished
            for name in self.planned
            if name.startswith(f"{study}/")
            for run in self.planned[name]
        )

    def _declared(self, name: str) -> tuple[PlannedRun, ...]:
        """What a sweep of this setting would ask for `name`, under the seeds planned here."""
        slug, _, variant = name.partition("/")
        overrides = self.plans[0].overrides
        try:
            study = self.studies.get(slug) or declared_studies.load_base(slug, name)
            if variant not in study.variants:
                return ()
            settings = merged(declared_studies.settings(study, variant), overrides)
            first = self.plans[0].runs[0].spec.data
            spec = resolve(settings | ({} if first.fold is None else {"data.fold": 0}), name, self.plans[0].data)
        except InputError:  # not declared here, or it does not have a setting that was put on every variant
            return ()
        against = declared_studies.compared_with(study, variant)
        specs = (spec.of(seed, fold) for seed, fold in self.asked)
        return tuple(declared_studies.planned_run(study, variant, one, against) for one in specs)


def scopes(contents: Contents) -> tuple[Scope, ...]:
    """The settings that a store holds, that of the latest sweep first.

    Raises:
        InputError: the store holds no sweep.
    """
    if not contents.sweeps:
        raise InputError(
            f"{contents.uri}: holds no sweep yet; train one first (example: mlflow run .), or repeat the command of runs"
            " that `repro sync` brought in, which trains none of them again"
            + "".join(f"; {note}" for note in contents.notes)
        )
    finished: dict[str, list[RunRow]] = {}
    for run in sorted(contents.runs, key=lambda run: (run.ended_ms, run.started_ms, run.run_id), reverse=True):
        finished.setdefault(run.key, []).append(run)
    by_key = {key: tuple(runs) for key, runs in finished.items()}
    found: dict[str, Scope] = {}
    newest_first = sorted(contents.sweeps, key=lambda sweep: (sweep.started_ms, sweep.run_id), reverse=True)
    for place, plan in enumerate(sweep.plan for sweep in newest_first if sweep.plan.runs):
        setting = setting_of(plan)
        ident = setting_id(setting)
        scope = found.get(ident, Scope(setting, ident, (), by_key, {}))
        places = {**dict.fromkeys((study.study for study in plan.studies), place), **scope.places}
        found[ident] = replace(scope, plans=(*scope.plans, plan), places=places, _rows={})
    return tuple(found.values())


def tables(contents: Contents, studies: Sequence[str] | None = None, setting: str | None = None) -> tuple[Table, ...]:
    """One table a study, in the order of the paper: in the setting of the study's latest sweep, or in `setting`.

    Args:
        contents: what the store holds.
        studies: slugs of the studies wanted; None for every study that was swept.
        setting: id of a setting (`Table.setting_id`).

    Raises:
        InputError: the store is empty, or holds no such study or setting.
    """
    every = scopes(contents)
    swept = {slug: study for scope in every for slug, study in scope.studies.items()}
    for slug in studies or ():
        if slug not in swept:
            raise unknown("study of the store", slug, swept)
    if setting is not None:
        scope_of(every, setting)
    made = []
    for slug in sorted(studies or swept, key=lambda slug: _paper_order(swept[slug])):
        holding = sorted(
            (scope for scope in every if slug in scope.places),
            key=lambda scope: (not scope.answers(slug), scope.places[slug]),
        )
        chosen = next((scope for scope in holding if setting in {None, scope.setting_id}), None)
        if chosen is not None:
            made.append(_table(chosen, slug, [scope for scope in holding if scope is not chosen]))
        elif studies:
            allowed = ", ".join(scope.setting_id for scope in holding)
            raise InputError(f"{slug} was not swept in setting {setting} (allowed: {allowed})")
    return tuple(made)


def comparable(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables of one setting, that of the first one with finished runs: numbers of two settings are not compared."""
    answered = [table for table in tables if any(row.runs for row in table.rows)]
    return tuple(table for table in tables if answered and table.setting_id == answered[0].setting_id)


def scope_of(every: Sequence[Scope], setting: str) -> Scope:
    """The scope of a setting's id; an error that lists the ids where there is none."""
    for scope in every:
        if scope.setting_id == setting:
            return scope
    raise unknown("setting", setting, [scope.setting_id for scope in every])


def setting_of(plan: Plan) -> dict[str, Value]:
    """What all rows of a table share: the data, and the protocol with what was put on every variant.

    What a study's variants set themselves is theirs; a table has a note of it.
    """
    return dict(PROTOCOL) | plan.setting | {"semantics": plan.runs[0].spec.semantics}


def setting_id(setting: Mapping[str, Value]) -> str:
    """Eight hexadecimal digits that name a setting: what `--setting` takes."""
    return hashlib.sha256(json.dumps(hashed(setting), sort_keys=True).encode()).hexdigest()[:8]


def describe(setting: Mapping[str, Value]) -> str:
    """A setting in one line: the data set with the head of its digest, and what differs from the declared protocol."""
    data = f"{setting['data.dataset']} ({str(setting['data.digest'])[:8]})"
    return ", ".join([data, *(change for change in changes(setting) if not change.startswith("data.dataset="))])


def metric(run: RunRow, name: str) -> float | None:
    """A final metric, or None where it is missing or not finite."""
    value = run.metrics.get(name)
    return value if value is not None and math.isfinite(value) else None


def _table(scope: Scope, slug: str, others: Sequence[Scope]) -> Table:
    study = scope.studies[slug]
    named = [name for name in scope.planned if name.startswith(f"{slug}/")]
    order = {f"{slug}/{variant}": place for place, variant in enumerate(study.variants)}
    rows = [row for name in sorted(named, key=lambda name: order.get(name, len(order))) if (row := scope.row(name))]
    wanted = dict.fromkeys([REFERENCE, *(row.against for row in rows if row.against is not None)])
    bases = {name: row for name in wanted if (row := scope.row(name)) is not None}
    rows = [_without_itself(row, bases) for row in rows]
    notes = [
        f"{study.title} was also run in another setting: {describe(other.setting)} (--setting {other.setting_id})"
        for other in others
    ]
    for row in rows:
        notes += _notes(scope, row)
    return Table(study, scope.setting, scope.setting_id, tuple(rows), bases, tuple(notes))


def _notes(scope: Scope, row: Row) -> list[str]:
    notes = []
    if row.missing:
        seeds = ", ".join(map(str, row.missing))
        notes.append(f"{row.variant}: no finished run yet for seed{'s' * (len(row.missing) > 1)} {seeds}")
    own = [
        f"{name}={value}"
        for name, value in flatten(row.spec).items()
        if name.startswith(("data.", "training.")) and name != "data.fold" and value != scope.setting[name]
    ]
    if own:
        notes.append(f"{row.variant}: declared with {', '.join(own)}")
    if any(_question(run.spec) != _question(row.spec) for run in scope.planned[row.name]):
        notes.append(f"{row.variant}: declared otherwise in an earlier sweep, whose runs are left out")
    for run in row.runs:
        who = f"{row.variant} seed {run.seed}"
        if extra := len(scope.finished[run.key]) - 1:
            notes.append(f"{who}: {extra + 1} finished runs of key {run.key}; the latest, {run.run_id}, counts")
        if run.outcome == "diverged":
            notes.append(f"{who}: diverged (a loss was not finite)")
        if lacking := [name for name in RESULT_METRICS if metric(run, name) is None]:
            notes.append(f"{who}: {', '.join(lacking)} missing or not finite; left out")
        if run.curve is not None and len(set(run.curve.epoch.tolist())) != len(run.curve.epoch):
            notes.append(f"{who}: some epochs were recorded twice")
    return notes


def _without_itself(row: Row, bases: Mapping[str, Row]) -> Row:
    """The row, compared with nothing where its base asks the same (SqueezeNet with BN is the default of many tables)."""
    base = bases.get(row.against or "")
    return row if base is None or _question(base.spec) != _question(row.spec) else replace(row, against=None)


def _question(spec: RunSpec) -> tuple[object, ...]:
    """What a spec asks, whatever its seed and fold."""
    data = spec.data if spec.data.fold is None else spec.data.model_copy(update={"fold": None})
    return spec.model, data, spec.optimizer, spec.training, spec.semantics


def _paper_order(study: Study) -> tuple[bool, int, bool, str]:
    return study.table is None, study.table or 0, study.study == "best", study.study
