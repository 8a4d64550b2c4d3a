"""Inconsistencies in published numbers: what a careful author would accept as fair. No run is needed.

Two checks are computed for any study with published numbers, the paper's and one's own: the granularity of the accuracies
(GRIM; Brown and Heathers 2017, "The GRIM test") and the sizes against the declared models. The others are written in
`experiments/claims/`; their numbers are computed from the published ones, and each stands only while its conditions hold.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repro import built
from repro import studies as declared_studies
from repro.built import Model
from repro.errors import InputError, unknown
from repro.published import Paper, Protocol, Published, Written, decimals, size_unit
from repro.reporting.join import Table, paper_studies
from repro.spec import Value, flatten, resolve
from repro.study import Study

UNLIKELY = 0.001
"""Probability below which a pattern of digits is not put down to chance."""
_GRIM = "(GRIM, Brown and Heathers 2017)"
_ARITHMETIC = {" + ": operator.add, " - ": operator.sub, " * ": operator.mul, " / ": operator.truediv}


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency of the published numbers, in the paper's own numbers."""

    kind: str
    where: tuple[str, ...]
    """Rows (`study/variant`) and sections (`section 5.1`)."""
    sentence: str
    """All of it in one or two plain sentences."""
    printed: str
    computed: str


@dataclass(frozen=True, slots=True)
class Audited:
    """Studies whose numbers were published together, with what is known of their models by (study, variant)."""

    studies: Sequence[Study]
    protocol: Protocol | None
    models: Mapping[tuple[str, str], Model]

    def model(self, row: str) -> Model | None:
        """What is known of the model of `study/variant`."""
        study, _, variant = row.partition("/")
        return self.models.get((study, variant))

    @property
    def rows(self) -> dict[str, Published]:
        """The published numbers by `study/variant`."""
        return {
            f"{study.study}/{slug}": one.published for study in self.studies for slug, one in study.variants.items()
        }


def findings(
    paper: Paper,
    studies: Sequence[str] | None = None,
    own: Iterable[Audited] = (),
    models: Mapping[tuple[str, str], Model] | None = None,
) -> tuple[Finding, ...]:
    """Every finding about the paper and one's own studies.

    Args:
        paper: the written findings and the protocol of the paper.
        studies: slugs of the studies that findings must concern; None for all findings.
        own: studies of one's own with the numbers published for them.
        models: what is known of the declared models; None reads `built.known`, and without that sizes are left out.

    Raises:
        InputError: a written finding names a row, field or number that does not exist.
    """
    declared = [study for study in declared_studies.declared() if study.study in paper_studies()]
    known = built.known() or {} if models is None else models
    printed = Audited(declared, paper.protocol, known)
    found = [*_checks(printed), *(one for written in paper.findings.values() for one in _written(written, printed))]
    for one in own:
        found += _checks(one)
    return tuple(one for one in found if studies is None or _of(one) & {*studies})


def _of(finding: Finding) -> frozenset[str]:
    """The studies that a finding is about; what names no row is about the whole paper."""
    named = {place.partition("/")[0] for place in finding.where if "/" in place or place in paper_studies()}
    return frozenset(named) or paper_studies()


def of_table(table: Table) -> Audited:
    """A study of one's own with its published numbers and the models that its runs saved."""
    models: dict[tuple[str, str], Model] = {
        (row.study, row.variant): built.Built(
            round(row.metric("parameters") or 0), round(row.metric("multiply_adds") or 0), row.size
        )
        for row in table.rows
        if row.size is not None
    }
    return of_own(table.study, models)


def of_own(study: Study, models: Mapping[tuple[str, str], Model]) -> Audited:
    """A study of one's own without the base that it takes from another: what was published for that is the other's."""
    theirs = {
        f"{one.study}/{slug}": row.published
        for one in declared_studies.declared()
        for slug, row in one.variants.items()
    }
    own = {
        name: one
        for name, one in study.variants.items()
        if one.set or one.base is None or one.base != study.base or one.published != theirs.get(one.base, one.published)
    }
    return Audited([study.model_copy(update={"variants": own})], study.protocol, models)


def _checks(audited: Audited) -> Iterator[Finding]:
    yield from _impossible_means(audited)
    yield from _single_runs(audited)
    yield from _sizes(audited)


def _shares(audited: Audited) -> dict[float, str]:
    """Each accuracy once, of tables and text, with a row that has it."""
    shares: dict[float, str] = {}
    for name, row in audited.rows.items():
        for share in (row.accuracy, row.test_accuracy, row.text.get("accuracy")):
            if share is not None:
                shares.setdefault(share, name)
    return shares


def _on_grain(shares: ArrayLike, total: int, places: ArrayLike) -> NDArray[np.bool_]:
    """Which percentages are counts of `total`, each rounded to so many places, halves up or down."""
    percent, half = np.asarray(shares, dtype=np.float64), 0.5 * 10.0 ** -np.asarray(places, dtype=np.float64)
    return np.asarray(np.abs(100 * np.rint(percent / 100 * total) / total - percent) <= half + 1e-9)


def _impossible_means(audited: Audited) -> Iterator[Finding]:
    """A mean of k shares of n images is a multiple of 1/(k n): some percentages are none, rounded as they are."""
    if (protocol := audited.protocol) is None:
        return
    total = protocol.seeds * protocol.images
    shares = _shares(audited)
    grain = _on_grain([*shares], total, [*map(decimals, shares)])  # a final zero may be lost, which accuses nothing
    for (share, name), possible in zip(shares.items(), grain, strict=True):
        if not possible:
            runs = f"{protocol.seeds} run{'s' * (protocol.seeds > 1)} on {protocol.images:,} images"
            sentence = f"No mean accuracy of {runs} rounds to {share:g}% {_GRIM}."
            yield Finding("impossible mean", (name,), sentence, f"{share:g}", f"multiples of 1/{total}")


def _single_runs(audited: Audited) -> Iterator[Finding]:
    """Some of the means of k runs are multiples of 1/n; if all that is printed with every decimal is, they are single runs."""
    if (protocol := audited.protocol) is None or protocol.seeds == 1:
        return
    every = _shares(audited)
    places = max(map(decimals, every), default=0)
    shares = {share: name for share, name in every.items() if decimals(share) == places}
    counts = np.arange(protocol.seeds * protocol.images + 1)
    means = np.round(100 * counts / counts[-1], places).tolist()
    printed = [mean for mean in means if decimals(mean) == places]
    expected = float(_on_grain(printed, protocol.images, places).mean()) if printed else 1.0
    n, single = len(shares), int(_on_grain(list(shares), protocol.images, places).sum())
    if n and sum(math.comb(n, k) * expected**k * (1 - expected) ** (n - k) for k in range(single, n + 1)) < UNLIKELY:
        count = f"{single} of {n} accuracies with {places} decimals are multiples of 1/{protocol.images}"
        sentence = (
            f"The accuracies are said to be means of {protocol.seeds} seeds, but {count}, as accuracies of single runs are;"
            f" about {expected:.0%} of such means would be {_GRIM}."
        )
        yield Finding(
            "granularity", tuple(dict.fromkeys(shares.values())), sentence, f"means of {protocol.seeds} seeds", count
        )


def _sizes(audited: Audited) -> Iterator[Finding]:
    """A printed size that some of its models cannot have; a row that does not identify its model is left out."""
    unsure = {
        f"{one.study}/{slug}" for one in audited.studies for slug, row in one.variants.items() if row.published.reading
    }
    groups: dict[float, dict[str, Model]] = {}
    for name, row in audited.rows.items():
        if row.size is not None and (model := audited.model(name)) is not None and name not in unsure:
            groups.setdefault(row.size, {})[name] = model
    for size, rows in groups.items():
        if all(size_unit(size, model.size_legacy_mib) for model in rows.values()):
            continue
        told = {f"{one.size_legacy_mib:.2f} MiB ({one.parameters:,} parameters)": None for one in rows.values()}
        many = len(told) > 1
        sentence = f"{size:g} MB is printed for {'models' if many else 'a model'} of {' and '.join(told)}."
        yield Finding("equal sizes" if many else "size", tuple(rows), sentence, f"{size:g}", ", ".join(told))


def _written(written: Written, printed: Audited) -> Iterator[Finding]:
    """The finding with its numbers, if they are all known and its conditions hold."""
    values: dict[str, float] = {}
    computed = []
    for name, text in written.numbers.items():
        value = _number(text, values, printed)
        if value is None:
            return
        values[name] = value
        if any(sign in text for sign in _ARITHMETIC):
            computed.append(f"{name} {value:.4g}")
    if all(_holds(condition, values, printed) for condition in written.holds):
        stated = [f"{name} {values[name]:g}" for name, text in written.numbers.items() if "/" in text.partition(".")[0]]
        sentence = written.says.format(**values)
        yield Finding(written.kind, written.where, sentence, ", ".join(stated), ", ".join(computed))


def _holds(condition: str, values: Mapping[str, float], printed: Audited) -> bool:
    left, sign, right = condition.split()
    if sign == "lacks":
        return not _has(left, right, printed)
    one, other = (_number(text, values, printed) for text in (left, right))
    if one is None or other is None:
        return False
    return {"<": one < other, ">": one > other, "=": math.isclose(one, other)}[sign]


def _number(text: str, values: Mapping[str, float], printed: Audited) -> float | None:
    """A number, an earlier one by its name, one of a row or of the protocol, or two of them and what is between."""
    for sign, apply in _ARITHMETIC.items():
        left, found, right = text.partition(sign)
        if found:
            one, other = (_number(side, values, printed) for side in (left, right))
            return None if one is None or other is None else float(apply(one, other))
    if text in values:
        return values[text]
    try:
        return float(text)
    except ValueError:
        return _looked_up(text, values, printed)


def _looked_up(text: str, values: Mapping[str, float], printed: Audited) -> float | None:
    name, _, field = text.partition(".")
    if name == "protocol" and printed.protocol is not None:
        return float(getattr(printed.protocol, field))
    rows = printed.rows
    if name not in rows:
        raise InputError(f"audit: {unknown('number', text, [*values, *rows])}")
    model = printed.model(name)
    of_model = {"mib": "size_legacy_mib", "parameters": "parameters", "multiply_adds": "multiply_adds"}
    if field in of_model:
        return None if model is None else float(getattr(model, of_model[field]))
    published = {**rows[name].model_dump(exclude={"text"}), **{f"text.{key}": v for key, v in rows[name].text.items()}}
    if field not in published:
        raise InputError(f"audit: {name}: {unknown('published number', field, [*published, *of_model])}")
    return None if published[field] is None else float(published[field])


def _has(slug: str, row: str, printed: Audited) -> bool:
    """Whether a study has a row that asks the same as another study's row."""

    def settings(study: Study, variant: str) -> dict[str, Value]:
        return flatten(resolve(declared_studies.settings(study, variant), f"{study.study}/{variant}"))

    by_slug = {study.study: study for study in printed.studies}
    owner, _, variant = row.partition("/")
    wanted = settings(by_slug[owner], variant)
    return any(settings(by_slug[slug], name) == wanted for name in by_slug[slug].variants)
