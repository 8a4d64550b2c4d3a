"""A study: one question, its variants and the numbers published for them, read from `experiments/*.yaml`.

    experiments/*.yaml -> Study -> plan() -> Plan (what a sweep trains, in order, with the published numbers beside it)

A variant says only what differs from its `base`, another variant of the same study or `study/variant` of another one;
the base is also what it is compared with, unless the study says `against`. Entry points choose variants by their labels
(`fire: removed`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_serializer

from repro import datasets, declarations, grids, layout
from repro.datasets import DATASETS, KnownData
from repro.errors import InputError, shown, unknown
from repro.networks import SqueezeNetSpec
from repro.published import TEXT, Published
from repro.spec import RunSpec, Value, changes, flatten, merged, resolve, spread
from repro.study import Study, Variant
from repro.validation import Strict, validated

_BESIDE = Path(__file__).parent / "experiments"  # where a wheel carries the declarations
DECLARATIONS = _BESIDE if _BESIDE.is_dir() else Path(__file__).parent.parent / "experiments"
"""The folder of the studies that come with the project."""

_DATA_SET = ("data.dataset", "data.digest", "data.split_digest", "data.image_size", "data.folds")
"""What a variant cannot set itself: a plan is on one data set."""


class PlannedRun(Strict):
    """One run of a plan: a row of a study under one seed."""

    study: str
    variant: str
    title: str
    seed: int
    key: str = Field(pattern=r"^[0-9a-f]{16}$")
    """The key of the run's spec, as it was when the run was planned."""
    against: str | None
    """`study/variant` that the row is compared with; None for a row that stands for itself."""
    published: Published
    spec: RunSpec

    @field_serializer("published")
    def _without_defaults(self, published: Published) -> dict[str, Any]:
        return published.model_dump(mode="json", exclude_defaults=True)

    @property
    def name(self) -> str:
        """The run's name in MLflow."""
        return self.spec.run_name(self.variant)


class Plan(Strict):
    """What one sweep asks for, fully resolved. Several rows may have one key: the run is trained once."""

    name: str
    """The study's slug, or `paper` for all of them."""
    overrides: Mapping[str, Any]
    """What was set on every variant: dotted name -> value."""
    data: KnownData | None = None
    """The data set that all runs see; None in a plan of a version that knew no other than those of `DATASETS`."""
    studies: Annotated[tuple[Study, ...], Field(strict=False)]
    runs: Annotated[tuple[PlannedRun, ...], Field(strict=False, min_length=1)]

    @property
    def unique(self) -> tuple[PlannedRun, ...]:
        """One planned run a key, the first that asks for it."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.key, run)
        return tuple(first.values())

    @property
    def setting(self) -> dict[str, Value]:
        """What all rows of a table must share, as it was resolved: the data set and what was set on every variant."""
        flat = flatten(self.runs[0].spec)
        return {name: flat[name] for name in _DATA_SET} | {
            name: flat.get(name, value) for name, value in self.overrides.items()
        }

    @property
    def known(self) -> KnownData:
        """The data set that all runs see."""
        return self.data or DATASETS[self.runs[0].spec.data.dataset]


def load(source: str | Path) -> Study:
    """The study in a YAML file, or the declared one of that name.

    Raises:
        InputError: no such study, broken YAML, or a declaration that is not valid: one line naming file and key.
    """
    path = Path(source)
    if path.suffix.lower() not in {".yaml", ".yml"}:
        if str(source) not in _declared():
            raise unknown("study", str(source), _declared())
        path = DECLARATIONS / f"{source}.yaml"
    study = validated(Study, declarations.read(path), str(path))
    if study.study in _declared() and path.resolve().parent != DECLARATIONS.resolve():
        raise InputError(f"{path}: study: {study.study!r} is a study of the project; give your own another name")
    if study.dataset is not None:
        try:
            datasets.named(study.dataset, study.image_size or 32)
        except InputError as error:
            raise InputError(f"{path}: dataset: {error}") from None
    if study.against is not None:
        _row(study, qualified(study, study.against), f"{path}: against")
    if study.study not in _declared() and study.include_base and study.base is not None and "/" in study.base:
        study = _with_base(study, study.base, str(path))
    for slug, variant in study.variants.items():  # what does not exist is said now, not when it is trained
        known = flatten(resolve(settings(study, slug, str(path)), f"{path}: variants.{slug}"))
        if study.axis is not None and study.axis not in known:
            raise InputError(f"{path}: axis: {unknown('setting', study.axis, known)}")
        if bad := sorted(set(variant.published.text) - set(Published.model_fields)):
            raise InputError(f"{path}: variants.{slug}.published.text: {unknown('number', bad[0], TEXT)}")
    for slug, name in study.claimed:
        _row(study, name, f"{path}: claims.{slug}")
    return study


def _with_base(study: Study, base: str, where: str) -> Study:
    """The study with its base as the first row, where that is a row of another study."""
    owner, slug = _row(study, base, f"{where}: base")
    if owner is study:
        return study
    row = owner.variants[slug]
    own = Variant(title=row.title, base=f"{owner.study}/{slug}")
    if not changes(study.data):  # else its published numbers are of other data
        own = own.model_copy(update={"published": row.published, "note": row.note})
    name = slug if slug not in study.variants else f"{owner.study}_{slug}"
    return study.model_copy(update={"variants": {name: own, **study.variants}})


def declared() -> tuple[Study, ...]:
    """Every study that comes with the project: those with a table first, in the paper's order, then the others by name."""
    studies = [load(path.stem) for path in sorted(DECLARATIONS.glob("*.yaml"))]
    return tuple(
        sorted(studies, key=lambda study: (study.table is None, study.table or 0, study.study == "best", study.study))
    )


def settings(study: Study, slug: str, file: str | None = None, _seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The dotted settings of a variant: its base's, with its own on top; an error's line begins with `file`."""
    where = f"{file or f'{study.study}.yaml'}: variants.{slug}"
    if data := sorted({*_DATA_SET, "data.fold"} & set(study.variants[slug].set)):
        raise InputError(f"{where}.set: {data[0]} cannot be set here; all variants use one data set (--dataset, --set)")
    if (here := f"{study.study}/{slug}") in _seen:
        raise InputError(f"{where}.base: is circular ({' -> '.join((*_seen, here))})")
    variant = study.variants[slug]
    if fixed := sorted({"seed", "semantics"} & set(variant.set)):
        raise InputError(f"{where}.set: {fixed[0]} cannot be set here; every variant is run with each seed (--seeds)")
    base = based_on(study, slug)
    inherited: dict[str, Any] = {}
    if base is not None:
        owner, row = _row(study, base, f"{where}.base")
        inherited = settings(owner, row, file if owner is study else None, (*_seen, here))
    merged_settings = merged(inherited, variant.set)
    resolve(merged_settings, where)
    return merged_settings


def _row(study: Study, name: str, where: str) -> tuple[Study, str]:
    """The study and the slug that `study/variant` means, seen from `study`."""
    owner, _, slug = name.partition("/")
    found = study if owner == study.study else load_base(owner, where)
    if slug not in found.variants:
        raise InputError(f"{where}: {unknown(f'variant of {found.study}', slug, found.variants)}")
    return found, slug


def load_base(name: str, where: str) -> Study:
    """The declared study that a base names, its variants unchecked until they are asked for."""
    if name not in _declared():
        raise InputError(f"{where}: {unknown('study', name, _declared())}")
    return _read(DECLARATIONS / f"{name}.yaml")


@functools.cache
def _read(path: Path) -> Study:
    """The study of a declared file, read once: a hundred variants name the same few bases."""
    return validated(Study, declarations.read(path), str(path))


def _declared() -> set[str]:
    return {file.stem for file in DECLARATIONS.glob("*.yaml")}


def based_on(study: Study, slug: str) -> str | None:
    """`study/variant` that a variant differs from, or None."""
    return _other(study, slug, study.variants[slug].base or study.base)


def compared_with(study: Study, slug: str) -> str | None:
    """`study/variant` that a variant is compared with, or None."""
    return _other(study, slug, study.against) if study.against else based_on(study, slug)


def _other(study: Study, slug: str, name: str | None) -> str | None:
    if name is None or qualified(study, name) == f"{study.study}/{slug}":
        return None
    return qualified(study, name)


def qualified(study: Study, name: str) -> str:
    """`study/variant` of a row that a study names, of its own by the variant alone."""
    return name if "/" in name else f"{study.study}/{name}"


def select(study: Study, labels: Mapping[str, str] | None = None, variants: Sequence[str] = ()) -> tuple[str, ...]:
    """The slugs of a study's variants with these labels and among these names ("all" and "both" choose every one)."""
    chosen = list(study.variants)
    for name, wanted in (labels or {}).items():
        if wanted in {"all", "both"}:
            continue
        allowed = study.labels(name)
        if wanted not in allowed:
            raise InputError(
                f"{name}: {unknown('value', wanted, [*allowed, 'both' if name == 'batchnorm' else 'all'])}"
            )
        chosen = [slug for slug in chosen if study.variants[slug].labels.get(name) == wanted]
    for slug in variants:
        if slug != "all" and slug not in study.variants:
            raise unknown(f"variant of {study.study}", slug, [*study.variants, "all"])
    if variants and "all" not in variants:
        chosen = [slug for slug in chosen if slug in variants]
    if not chosen:
        raise InputError(
            f"{study.study}: no variant has all of {dict(labels or {})}; its variants are {', '.join(study.variants)}"
        )
    return tuple(chosen)


def plan(
    chosen: Iterable[tuple[Study, Sequence[str]]],
    *,
    seeds: Sequence[int],
    overrides: Mapping[str, Value] | None = None,
    data: KnownData | None = None,
    name: str | None = None,
) -> Plan:
    """The runs of some studies' variants under every seed: all rows with the first seed, then with the next.

    Args:
        chosen: studies with the slugs to train.
        seeds: the seeds, each at least 0.
        overrides: dotted settings put on every variant; `data.folds` makes it a cross-validation.
        data: what is known of the data set; needed where it is none of `DATASETS`.
        name: name of the sweep; the study's where there is one.

    Raises:
        InputError: a setting that some chosen variant does not have, a value out of range, a network that cannot be, or
            more than 10,000 runs.
    """
    chosen = list(chosen)
    overrides = spread(overrides or {})
    if "data.fold" in overrides:
        raise InputError("data.fold: cannot be set here; every fold is run (--folds 5)")
    if data is not None:
        overrides |= {"data.dataset": data.name}
    folds = overrides.get("data.folds") or next((study.folds for study, _ in chosen if study.folds), None)
    if isinstance(folds, int):
        overrides["data.folds"] = folds
    each = [(seed, fold) for seed in seeds for fold in (range(folds) if isinstance(folds, int) else (None,))]
    if (count := len(each) * sum(len(slugs) for _, slugs in chosen)) > grids.MOST:
        raise InputError(
            f"plan: {count:,} runs (allowed: at most {grids.MOST:,}); choose fewer variants, seeds or folds"
        )
    asked = []
    for study, slugs in chosen:
        for slug in slugs:
            where = f"{study.study}/{slug}"
            wanted = merged(settings(study, slug), overrides) | ({"data.fold": 0} if folds else {})
            spec = resolve(wanted, where, data)
            try:
                if data is not None:
                    spec.fits(data)
                if isinstance(spec.model, SqueezeNetSpec):
                    layout.blocks(spec.model)
            except (InputError, ValueError) as error:
                raise InputError(f"{where}: {error}") from None
            asked.append((study, slug, spec, compared_with(study, slug)))
    runs = [
        planned_run(study, slug, spec.of(seed, fold), against)
        for seed, fold in each
        for study, slug, spec, against in asked
    ]
    studies = tuple(study for study, _ in chosen)
    name = name or "+".join(study.study for study in studies)
    return Plan(name=name, studies=studies, runs=tuple(runs), overrides=overrides, data=data)


def planned_run(study: Study, slug: str, spec: RunSpec, against: str | None) -> PlannedRun:
    """The run of a variant that a spec asks for."""
    variant = study.variants[slug]
    return PlannedRun(
        study=study.study,
        variant=slug,
        title=variant.title,
        seed=spec.seed,
        key=spec.key,
        against=against,
        published=variant.published,
        spec=spec,
    )


def dump(plan: Plan) -> str:
    """The plan as JSON, as it is stored with a sweep (`sweep.json`); `restore` reads it back."""
    stored = {"schema": 1, **plan.model_dump(mode="json"), "setting": plan.setting}
    return json.dumps(stored, indent=1)


def restore(text: str, where: str) -> Plan:
    """The plan that `dump` wrote; `where` stands at the head of an error's line."""
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a sweep's plan ({type(error).__name__}: {error})") from None
    if not isinstance(stored, dict) or "schema" not in stored:
        raise InputError(f"{where}: not a sweep's plan (it has no schema)")
    if (schema := stored.pop("schema")) != 1:
        raise InputError(f"{where}: schema {shown(schema)} of a sweep's plan is not known (allowed: 1); update repro")
    stored.pop("setting", None)  # it follows from the rest
    return validated(Plan, stored, where)
