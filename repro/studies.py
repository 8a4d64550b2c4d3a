"""A study: one question, its variants and the numbers published for them, read from `experiments/*.yaml`.

    experiments/*.yaml -> Study -> plan() -> Plan (what a sweep trains, in order, with the published numbers beside it)

A variant says only what differs from its `base`, another variant of the same study or `study/variant` of another one;
the base is also what it is compared with, unless the study says `against`. Entry points choose variants by their labels
(`fire: removed`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from repro import declarations, layout
from repro.errors import InputError, shown, unknown
from repro.published import Published
from repro.spec import RunSpec, SqueezeNetSpec, Value, flatten, merged, resolve
from repro.validation import Strict, validated

_BESIDE = Path(__file__).parent / "experiments"  # where a wheel carries the declarations
DECLARATIONS = _BESIDE if _BESIDE.is_dir() else Path(__file__).parent.parent / "experiments"
"""The folder of the studies that come with the project."""

_LAST_SEED = 2**31 - 1
_MOST_SEEDS = 10_000

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Variant(Strict):
    """One row of a study."""

    title: str = Field(min_length=1)
    base: str | None = None
    """The variant this one differs from; None is no other than the study's own base."""
    set: Mapping[str, Any] = Field(default_factory=dict)
    """Dotted settings that differ from the base's."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    published: Published = Published()
    note: str = ""
    """Why a published number cannot be met, or what of the declaration is our reading; shown beside the row."""


class Study(Strict):
    """One question and its variants, in the order of the paper's table."""

    study: Slug
    title: str = Field(min_length=1)
    question: str = Field(min_length=1)
    section: str = ""
    """The section of the paper that reports it."""
    table: int | None = None
    """The number of the paper's table; None for what stands in the text only."""
    base: str | None = None
    """Base of every variant that names none: a variant of this study or `study/variant`."""
    against: str | None = None
    """The variant that all rows are compared with where it is not their base: of this study or `study/variant`."""
    axis: str | None = None
    """The swept hyperparameter as a dotted name, for the studies that sweep one."""
    variants: Mapping[Slug, Variant] = Field(min_length=1)

    def labels(self, name: str) -> list[str]:
        """The values of label `name` in this study, in order of appearance."""
        return list(dict.fromkeys(variant.labels[name] for variant in self.variants.values() if name in variant.labels))


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a plan: a row of a study under one seed."""

    study: str
    variant: str
    title: str
    seed: int
    spec: RunSpec
    published: Published
    against: str | None
    """`study/variant` that the row is compared with; None for a row that stands for itself."""

    @property
    def key(self) -> str:
        """The key of the run's spec."""
        return self.spec.key

    @property
    def name(self) -> str:
        """The run's name in MLflow."""
        return f"{self.variant} seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one sweep asks for, fully resolved. Several rows may have one key: the run is trained once."""

    name: str
    """The study's slug, or `paper` for all of them."""
    studies: tuple[Study, ...]
    runs: tuple[PlannedRun, ...]
    overrides: Mapping[str, Value]
    """What was set on every variant: dotted name -> value."""

    @property
    def unique(self) -> tuple[PlannedRun, ...]:
        """One planned run a key, the first that asks for it."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.key, run)
        return tuple(first.values())

    @property
    def setting(self) -> dict[str, Value]:
        """What all rows of a table must share: data, training budget and what was set on every variant."""
        shared = {
            name: value for name, value in flatten(self.runs[0].spec).items() if name.startswith(("data.", "training."))
        }
        return shared | dict(self.overrides)


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
    if study.against is not None:
        _row(study, _qualified(study, study.against), f"{path}: against")
    for slug, variant in study.variants.items():  # what does not exist is said now, not when it is trained
        known = flatten(resolve(settings(study, slug, str(path)), f"{path}: variants.{slug}"))
        if study.axis is not None and study.axis not in known:
            raise InputError(f"{path}: axis: {unknown('setting', study.axis, known)}")
        if bad := sorted(set(variant.published.text) - set(Published.model_fields)):
            allowed = ["accuracy", "epochs", "epoch_seconds", "size"]
            raise InputError(f"{path}: variants.{slug}.published.text: {unknown('number', bad[0], allowed)}")
    return study


def declared() -> tuple[Study, ...]:
    """Every study that comes with the project: those with a table first, in the paper's order, then the others by name."""
    studies = [load(path.stem) for path in sorted(DECLARATIONS.glob("*.yaml"))]
    return tuple(
        sorted(studies, key=lambda study: (study.table is None, study.table or 0, study.study == "best", study.study))
    )


def settings(study: Study, slug: str, file: str | None = None, _seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The dotted settings of a variant: its base's, with its own on top; an error's line begins with `file`."""
    where = f"{file or f'{study.study}.yaml'}: variants.{slug}"
    if data := sorted(name for name in study.variants[slug].set if name.startswith("data.")):
        raise InputError(f"{where}.set: {data[0]} is not set here; a plan is on one data set (--dataset, --set)")
    if (here := f"{study.study}/{slug}") in _seen:
        raise InputError(f"{where}.base: goes round in a circle ({' -> '.join((*_seen, here))})")
    variant = study.variants[slug]
    if fixed := sorted({"seed", "semantics"} & set(variant.set)):
        raise InputError(f"{where}.set: {fixed[0]} is not set here; a plan runs every variant under each of its seeds")
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
    if name is None or _qualified(study, name) == f"{study.study}/{slug}":
        return None
    return _qualified(study, name)


def _qualified(study: Study, name: str) -> str:
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
    name: str | None = None,
) -> Plan:
    """The runs of some studies' variants under every seed: all rows with the first seed, then with the next.

    Args:
        chosen: studies with the slugs to train.
        seeds: the seeds, each at least 0.
        overrides: dotted settings put on every variant.
        name: name of the sweep; the study's where there is one.

    Raises:
        InputError: a setting that some chosen variant does not have, a value out of range, or a network that cannot be.
    """
    chosen = list(chosen)
    overrides = dict(overrides or {})
    asked = [
        (study, slug, merged(settings(study, slug), overrides), compared_with(study, slug))
        for study, slugs in chosen
        for slug in slugs
    ]
    rows = [
        PlannedRun(
            study=study.study,
            variant=slug,
            title=study.variants[slug].title,
            seed=seed,
            spec=resolve({**wanted, "seed": seed}, f"{study.study}/{slug}"),
            published=study.variants[slug].published,
            against=against,
        )
        for seed in seeds
        for study, slug, wanted, against in asked
    ]
    for run in rows[: len(asked)]:  # those of the first seed
        if isinstance(run.spec.model, SqueezeNetSpec):
            try:
                layout.blocks(run.spec.model)
            except InputError as error:
                raise InputError(f"{run.study}/{run.variant}: {error}") from None
    studies = tuple(study for study, _ in chosen)
    return Plan(name or "+".join(study.study for study in studies), studies, tuple(rows), overrides)


def parse_overrides(text: str) -> dict[str, Value]:
    """`model.first_kernel=5,model.pools=[conv1, fire4]` as dotted settings; commas inside brackets do not split."""
    parts: list[str] = []
    depth = 0
    for piece in text.split(","):
        if depth:
            parts[-1] += "," + piece
        else:
            parts.append(piece)
        depth += sum(piece.count(c) for c in "[{(") - sum(piece.count(c) for c in "]})")
    overrides: dict[str, Value] = {}
    for part in filter(None, (part.strip() for part in parts)):
        dotted, equals, value = part.partition("=")
        if not equals or not dotted.strip():
            raise InputError(
                f"set: {shown(part)} is not name=value (example: model.first_kernel=5,model.residual=simple)"
            )
        dotted = dotted.strip()
        if dotted in {"seed", "semantics"}:
            raise InputError(f"set: {dotted} is not set here; use --seeds for seeds")
        if dotted in overrides:
            raise InputError(f"set: {shown(dotted)} is given twice")
        overrides[dotted] = declarations.parse_value(value.strip(), f"set: {shown(dotted)}")
    return overrides


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2`, `0-9` or `0,3,7-9` as seeds, in order, each once."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if not bounds:
            raise InputError(f"seeds: {shown(text)} is not a list of whole numbers from 0 (examples: 0,1,2 or 0-9)")
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if last < first or last > _LAST_SEED or len(seeds) + last - first >= _MOST_SEEDS:
            raise InputError(
                f"seeds: {part.strip()!r} is out of range (allowed: ascending, up to {_LAST_SEED}, at most {_MOST_SEEDS}"
                " seeds; examples: 0,1,2 or 0-9)"
            )
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


def dump(plan: Plan) -> str:
    """The plan as JSON, as it is stored with a sweep (`sweep.json`); `restore` reads it back."""
    return json.dumps(
        {
            "schema": 1,
            "name": plan.name,
            "overrides": dict(plan.overrides),
            "setting": plan.setting,
            "studies": [study.model_dump(mode="json") for study in plan.studies],
            "runs": [
                {
                    "study": run.study,
                    "variant": run.variant,
                    "title": run.title,
                    "seed": run.seed,
                    "key": run.key,
                    "against": run.against,
                    "published": run.published.model_dump(mode="json", exclude_defaults=True),
                    "spec": run.spec.model_dump(mode="json"),
                }
                for run in plan.runs
            ],
        },
        indent=1,
    )


class _StoredRun(Strict):
    study: str
    variant: str
    title: str
    seed: int
    key: str
    against: str | None
    published: Published
    spec: RunSpec


class _StoredPlan(Strict):
    name: str
    overrides: Mapping[str, Any]
    setting: Mapping[str, Any]
    studies: Annotated[tuple[Study, ...], Field(strict=False)]
    runs: Annotated[tuple[_StoredRun, ...], Field(strict=False, min_length=1)]


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
    kept = validated(_StoredPlan, stored, where)
    runs = [{field.name: getattr(run, field.name) for field in fields(PlannedRun)} for run in kept.runs]
    return Plan(kept.name, kept.studies, tuple(PlannedRun(**run) for run in runs), kept.overrides)
