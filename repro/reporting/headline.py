"""The headline of a report: whether a smaller network matches AlexNet, or which row is best, with what that rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from repro import studies
from repro.published import Paper
from repro.reporting import claims, samplesize
from repro.reporting import tables as sheets
from repro.reporting.frame import REFERENCE, Answer, Compared, Row
from repro.reporting.join import Table
from repro.reporting.stats import Estimate
from repro.reporting.verdicts import Noises, against_published, failed, failures, learned_from, noises_of


def headline(paper: Paper, tables: Sequence[Table]) -> Answer:
    """The answer of a report: whether a smaller network matches AlexNet, the question of the paper, else the best row.

    Studies of one's own ask it where their rows are compared with AlexNet. It is decided in the declared setting alone,
    and only if the reference has learned.
    """
    tables = [table for table in tables if table.answered]
    if not tables:
        return Answer("No finished run yet", "The store holds the plans of these studies, and no result.")
    lead = next((table for table in tables if table.printed and not table.setting.changes), tables[0])
    asked = [one for one in tables if one.printed and one.setting.id == lead.setting.id] if lead.printed else [lead]
    rows: dict[str, Row] = {}
    for row in (row for table in asked for row in table.rows if row.runs):
        rows[row.question] = max(rows.get(row.question, row), row, key=lambda one: len(one.runs))
    bases = Counter(row.base for row in rows.values() if row.base is not None)
    own = studies.qualified(lead.study, lead.study.against or lead.study.base or "")
    name = REFERENCE if lead.printed else own if own in bases else next((one for one, _ in bases.most_common(1)), None)
    reference = lead.setting.row(name) if name is not None else None
    if reference is not None and reference.runs:
        learned, size = [row for row in rows.values() if row.values("val", learned=True).size], reference.size or 0.0
        smaller = [row for row in learned if 0 < (row.size or 0.0) < size]
        matches = reference.name == REFERENCE and not lead.setting.changes and bool(smaller)
        asks = lead.printed or lead.study.study == "demo" or matches
        rivals = smaller if asks else [row for row in learned if row.base == reference.name]
        if rivals:
            rivals.sort(key=_val, reverse=True)
            return _against(reference, rivals, lead, paper.parity if matches else None)
    best = max(rows.values(), key=_val)
    judged = against_published(best, "val", noises_of(lead.setting))
    why = f"The highest mean of {len(rows)} networks" if len(rows) > 1 else "No other network has a finished run"
    if judged.predicted is not None:
        why += f"; one more run is expected to reach {judged.predicted.low:.2f} to {judged.predicted.high:.2f}%"
    why += f"; n = {len(best.runs)}."
    if reference is not None and not reference.runs:
        why += f" {reference.named}, with which it would be compared, has no finished run in this setting."
    printed = best.published.accuracy if lead.printed else None
    side = {"ours below": ", below the published {:.1f}%", "ours above": ", above the published {:.1f}%"}
    told = side.get(judged.verdict, " (published: {:.1f}%)").format(printed) if printed is not None else ""
    return Answer(f"{best.named} reaches {_val(best):.1f}% on validation{lead.setting.where}{told}", why)


def _against(reference: Row, rivals: Sequence[Row], lead: Table, parity: float | None) -> Answer:
    """The smallest rival that matches the reference on test, else the first, with intervals over all rivals.

    Args:
        reference: AlexNet, or the base of an own study.
        rivals: the best on validation first.
        lead: the table of their setting.
        parity: the points that a match may be behind; None if the question is which one is better.
    """
    noises, where = noises_of(lead.setting), lead.setting.where
    every, learned = noises.dunnett(rivals, reference), reference.values("test", learned=True)
    if rivals[0].name not in every or learned.mean() < learned_from(reference):
        how = failed(reference) or f"{learned.mean() if learned.size else 0:.1f}% on test"
        return Answer(f"Undecided{where}: {reference.named} has not learned", f"{reference.named}: {how}.")
    ranked = [_compared(row, every[row.name], reference, noises, parity) for row in rivals if row.name in every]
    # Intervals over folds are each row's own, so they choose no row among several.
    matching = [one for one in ranked if one.verdict == "a match" and not ranked[0].difference.folded]
    best, found, verdict = min(matching, key=lambda one: one.row.size or 0.0, default=ranked[0])
    foreign = noises.foreign(best, reference, found)
    told = claims.told(best, reference, found, "test") + f", {claims.FOREIGN}" * foreign
    left = "".join(f" {row.named}: {ends}, left out." for row in (best, reference) if (ends := failures(row)))
    why = [f"{told}.{left}"]
    if len(rivals) > 1 and found.low is not None:
        scope = "does not allow for this choice" if found.folded else f"is simultaneous over all {len(rivals)}"
        which = f"Best of {len(rivals)} networks on validation"
        if len(matching) == 1:
            which = f"The only one of {len(rivals)} networks that matches"
        elif matching:
            which = f"The smallest of {len(matching)} that match, of {len(rivals)} networks"
        why = [f"{which}: {told}; the interval {scope}.{left}"]
    what = "fold" if found.folded else "seed"
    seeds = f"one {what}" if found.n == 1 else f"{found.n} {what}s"
    signed = f"{found.estimate:+.1f}".replace("-", "−")
    if parity is None:
        which = f"whether {best.named} is more accurate than {reference.named}{where}: {signed} points on test, {seeds}"
        headline = f"Not yet decided {which}" if verdict == "undecided" else told.rpartition(" (")[0] + where
        rehearsal = " (a rehearsal)" * (lead.study.study == "demo")
        return Answer(headline + rehearsal, why[0], ranked, reference)
    own, other = (
        f"{row.metric('parameters') or 0:,.0f} parameters ({sheets.size(row.size or 0.0)} MiB)"
        for row in (best, reference)
    )
    why.append(f"It has {own}; {reference.named} has {other}.")
    expected, number = noises.prediction(best, "val"), reference.published.accuracy
    if number is not None and expected.low is not None and expected.high is not None:
        reach = f"{expected.low:.2f} to {expected.high:.2f}%"
        why.append(f"On validation one more run is expected to reach {reach}, against {number:g}%.")
    points = f"{parity:g} point{'s' * (parity != 1)}"
    why.append(
        f"A match is at most {points} behind our AlexNet on test, and not clearly further behind the published number."
    )
    smaller = f" at 1/{(reference.size or 0.0) / (best.size or 1.0):.0f} of its size"
    subject = "SqueezeNet" if lead.printed else best.named
    if verdict == "less accurate":
        off, what = min(_behind(best, found, reference, noises, parity))
        headline = f"{subject} is {-off:.1f} points less accurate than {what},{smaller}"
    elif verdict == "a match":
        headline = f"{subject} matches AlexNet{smaller}{f' ({seeds})' * (found.n == 1)}"
    else:
        headline = f"Not yet decided whether {subject} matches AlexNet: {signed} points on test, {seeds}"
        noise = noises.pair(best, reference, "test")
        if not (found.folded or foreign) and (
            n := samplesize.runs_to_lead(abs(found.estimate + parity), len(rivals), *noise)
        ):
            why.append(f"{n} seeds per row would decide it if the means stay the same.")
    return Answer(headline, " ".join(why), ranked, reference, parity)


def _compared(row: Row, found: Estimate, reference: Row, noises: Noises, parity: float | None) -> Compared:
    """A difference with its verdict; the noise of other families alone decides nothing."""
    if noises.foreign(row, reference, found):
        return Compared(row, found, "undecided")
    if parity is not None and _behind(row, found, reference, noises, parity):
        return Compared(row, found, "less accurate")
    if found.low is None or found.high is None:
        return Compared(row, found, "undecided")
    if parity is not None:
        return Compared(row, found, "a match" if found.low >= -parity else "undecided")
    return Compared(row, found, "better" if found.low > 0 else "worse" if found.high < 0 else "undecided")


def _behind(row: Row, found: Estimate, reference: Row, noises: Noises, parity: float) -> list[tuple[float, str]]:
    """How many points, and what a row is behind, where that is clearly more than a match allows."""
    expected, number = noises.prediction(row, "val"), reference.published.accuracy
    told = [(found.estimate, found.high, "our AlexNet on test")]
    if number is not None and expected.high is not None:
        told.append((expected.estimate - number, expected.high - number, f"the published {number:g}% on validation"))
    return [(off, what) for off, high, what in told if high is not None and high < -parity]


def _val(row: Row) -> float:
    values = row.values("val", learned=True)
    every = values if values.size else row.values("val")
    return float(every.mean()) if every.size else 0.0
