"""Records as tables: medians over the rounds, and ratios within each round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.asked import MODELS
from benchmarks.record import Measurement, Record

EPOCH_IMAGES = 50_000
ANYWHERE = {"gpu", "folder", "mechanisms"}
"""Parts that say on which machine they were measured, and are shown from any."""
MECHANISMS = {
    "passes": "hand-written passes (instead of autograd)",
    "winograd": "Winograd's algorithm (instead of torch's convolution)",
    "flat": "one flat buffer for the optimizer (instead of the adabound package)",
    "memory": "keeping freed memory",
    "denormals": "flushing denormal numbers to zero",
}

Rounds = dict[int, float]


def newest(records: Sequence[Record], part: str) -> tuple[Record | None, list[Measurement]]:
    """The last record that has a part, on the machine of the last record of all, and its measurements of that part.

    The parts of `ANYWHERE` may come from any machine, and what else is shown from another one.
    """
    of_kind = [
        record
        for record in records
        if part in ANYWHERE or not {one["part"] for one in record["measurements"]} <= ANYWHERE
    ]
    for record in reversed(of_kind):
        found = [one for one in record["measurements"] if one["part"] == part]
        if found and (part in ANYWHERE or record["machine"]["hardware"] == of_kind[-1]["machine"]["hardware"]):
            return record, found
    return None, []


def rates(found: Iterable[Measurement], program: str, model: str, precision: str = "fp32") -> Rounds:
    """Round -> images a second of a program; where it was measured in several settings, of the fastest."""
    rounds: Rounds = {}
    for one in found:
        if (one["program"], one["model"], one["precision"]) == (program, model, precision):
            rounds[one["round"]] = max(one["images_per_second"], rounds.get(one["round"], 0.0))
    return rounds


def ratio(ours: Rounds, theirs: Rounds) -> float | None:
    """Median over the rounds of the ratio within a round: both were measured within minutes of each other."""
    shared = sorted(ours.keys() & theirs.keys())
    return statistics.median(ours[number] / theirs[number] for number in shared) if shared else None


def markdown(records: Sequence[Record]) -> str:
    """The newest figures as Markdown: throughput, then what everything else costs."""
    if not records:
        return "Not measured yet.\n"
    return "\n".join(filter(None, [_throughput(records), _ratios(records), _costs(records), _gpu(records)]))


def summary(records: Sequence[Record]) -> str:
    """The newest ratios in a row, and where they were measured."""
    record, found = newest(records, "throughput")
    if record is None:
        return "Not measured yet.\n"
    cells = {}
    for model, title in MODELS.items():
        for precision in ("fp32", "bf16"):
            value = ratio(rates(found, "ours", model, precision), rates(found, "usual_loop", model))
            cells[f"{title}, {precision}"] = _times(value)
    head = ["images per second, relative to the usual PyTorch loop", *cells]
    return f"{_table(head, [['this project, on a CPU', *cells.values()]])}\n{_measured(record, found)}\n"


def _throughput(records: Sequence[Record]) -> str:
    record, found = newest(records, "throughput")
    if record is None:
        return ""
    rows = []
    for model, title in MODELS.items():
        columns = [
            rates(found, "usual_loop", model),
            rates(found, "lightning_loop", model),
            rates(found, "ours", model),
            rates(found, "ours", model, "bf16"),
        ]
        rows.append([title, *(f"{statistics.median(one.values()):,.0f}" if one else "" for one in columns)])
    head = ["images per second", "usual loop", "Lightning", "this project", "this project, bf16"]
    return f"{_measured(record, found)}\n\n{_table(head, rows)}"


def _ratios(records: Sequence[Record]) -> str:
    _, found = newest(records, "throughput")
    rows = []
    for model, title in MODELS.items():
        for precision in ("fp32", "bf16"):
            ours = rates(found, "ours", model, precision)
            usual = ratio(ours, rates(found, "usual_loop", model))
            if usual is None:
                continue
            lightning = ratio(ours, rates(found, "lightning_loop", model))
            rows.append([f"{title}, {precision}", _times(usual), _times(lightning)])
    return _table(["times faster", "than the usual loop", "than Lightning"], rows) if rows else ""


def _costs(records: Sequence[Record]) -> str:
    rows = [
        *_steps(records),
        *_tracking(records),
        *_waits(records),
        *_memory(records),
        *_flat(records),
        *_folder(records),
    ]
    return _table(["cost", "measured"], rows) if rows else ""


def _steps(records: Sequence[Record]) -> list[list[str]]:
    _, found = newest(records, "step")
    return [
        [
            f"training step relative to its forward and backward passes alone, {MODELS[one['model']]}, {one['precision']}",
            f"{one['ratio']:.2f} ({one['step_ms']:.1f} ms)",
        ]
        for one in found
    ]


def _tracking(records: Sequence[Record]) -> list[list[str]]:
    _, found = newest(records, "tracking")
    record, throughput = newest(records, "throughput")
    rates_here = rates(throughput, "ours", "squeezenet_bn")
    if not found or record is None or not rates_here:
        return []
    share = tracking_share(found[-1], statistics.median(rates_here.values()) / record["machine"]["cores"])
    return [
        [
            "journal and tracking as a share of an epoch of SqueezeNet",
            f"{share:.2%} ({found[-1]['journal_ms']:.0f} + {found[-1]['publish_ms']:.0f} ms)",
        ]
    ]


def tracking_share(measured: Measurement, rate: float) -> float:
    """Journal and tracking as a share of an epoch of CIFAR-10 at `rate` images a second of one run."""
    return float(measured["journal_ms"] + measured["publish_ms"]) / 1000 / (EPOCH_IMAGES / rate)


def _waits(records: Sequence[Record]) -> list[list[str]]:
    _, found = newest(records, "start")
    if not found:
        return []
    first = statistics.median(one["first_step_seconds"] for one in found)
    shown = statistics.median(seconds for one in found for seconds in one["help_seconds"])
    return [
        ["from the start of a sweep to its first step", f"{first:.1f} s"],
        ["`repro --help`", f"{shown:.2f} s"],
    ]


def _memory(records: Sequence[Record]) -> list[list[str]]:
    _, found = newest(records, "throughput")
    rows = []
    for model, title in MODELS.items():
        peaks: dict[str, float] = {}
        for one in found:
            if one["model"] == model and one["precision"] == "fp32" and one["pss_mib"]:
                peaks[one["program"]] = max(peaks.get(one["program"], 0.0), *one["pss_mib"])
        if "ours" in peaks:
            others = [f"{name} {peaks[key]:,.0f}" for key, name in _PEERS.items() if key in peaks]
            beside = f" ({', '.join(others)})" if others else ""
            rows.append([f"memory of a run (PSS), {title}", f"{peaks['ours']:,.0f} MiB{beside}"])
    return rows


_PEERS = {"usual_loop": "usual loop", "lightning_loop": "Lightning"}


def _flat(records: Sequence[Record]) -> list[list[str]]:
    _, found = newest(records, "flat")
    return [
        [
            f"time of the last epochs of {one['epochs']} relative to the first, {MODELS[one['model']]} on digits",
            f"{one['ratio']:.2f}",
        ]
        for one in found
    ]


def _folder(records: Sequence[Record]) -> list[list[str]]:
    record, found = newest(records, "folder")
    where = f" on {record['machine']['hardware']}" if record is not None else ""
    return [
        [
            f"memory (anonymous){where}: of a run on {one['images']:,} images of {one['side']}x{one['side']} pixels, and of"
            " their conversion",
            f"{one['run_mib']:,.0f} and {one['converting_mib']:,.0f} MiB",
        ]
        for one in found
    ]


def mechanisms(records: Sequence[Record]) -> str:
    """How many times as long a step takes without each mechanism."""
    record, found = newest(records, "mechanisms")
    if record is None:
        return "Not measured yet.\n"
    cells = {
        (one["mechanism"], one["model"]): f"{one['without']:.2f}"
        + (f" ({one['denormal']:.0%} of the moments)" if "denormal" in one else "")
        for one in found
    }
    rows = [[words, *(cells.get((name, model), "") for model in MODELS)] for name, words in MECHANISMS.items()]
    return f"{_measured(record, found)}\n\n{_table(['time of a step without it, relative to with it', *MODELS.values()], rows)}"


def _gpu(records: Sequence[Record]) -> str:
    record, found = newest(records, "gpu")
    if record is None:
        return ""
    asked = [(one["program"], not one["deterministic"], one["processes"]) for one in found]
    settings = sorted(set(asked))
    rows = []
    for model, precision in _COMPARED:
        cells = []
        for setting in settings:
            # side by side, that many epochs are done in the time of one
            seconds = [
                statistics.fmean(one["epoch_seconds"]) / one["processes"]
                for one, its in zip(found, asked, strict=True)
                if (its, one["model"], one["precision"]) == (setting, model, precision)
            ]
            cells.append(f"{statistics.median(seconds):.2f}" if seconds else "")
        rows.append([f"{MODELS[model]}, {precision}", *cells])
    head = [
        f"{count} concurrent{', not deterministic' if fast else ''}" if program == "ours" else "the usual loop"
        for program, fast, count in settings
    ]
    head = ["seconds per epoch of a run, in effect", *head]
    return f"{_measured(record, found, found[0]['hardware'])}\n\n{_table(head, rows)}"


def where_time_goes(records: Sequence[Record]) -> str:
    """Milliseconds of one step on one thread by kind of operation, largest first, of every network and precision."""
    record, found = newest(records, "profile") if records else (None, [])
    if record is None:
        return "Not measured yet.\n"
    kinds = sorted(
        {kind for one in found for kind in one["parts_ms"]},
        key=lambda kind: -max(one["parts_ms"].get(kind, 0.0) for one in found),
    )
    rows = [[kind, *(f"{one['parts_ms'].get(kind, 0.0):.1f}" for one in found)] for kind in kinds]
    rows.append(["rest", *(f"{one['step_ms'] - sum(one['parts_ms'].values()):.1f}" for one in found)])
    rows.append(["a whole step", *(f"{one['step_ms']:.1f}" for one in found)])
    head = ["ms per step, one thread", *(f"{MODELS[one['model']]}, {one['precision']}" for one in found)]
    return f"{_measured(record, found)}\n\n{_table(head, rows)}"


def products_by_layer(records: Sequence[Record]) -> str:
    """Forward and backward passes of single layers on one thread: torch's ways and this project's."""
    record, found = newest(records, "products") if records else (None, [])
    if record is None:
        return "Not measured yet.\n"
    rows = [
        [
            f"{MODELS[one['model']]}, {one['layer']}",
            f"{one['weight'][1]} to {one['weight'][0]}",
            "x".join(map(str, one["images"][2:])) or "none",
            f"{one['torch_ms']:.2f}",
            f"{one['ours_ms']:.2f}",
            f"{one['torch_ms'] / one['ours_ms']:.2f}",
            f"{one['torch_error']:.1e}",
            f"{one['ours_error']:.1e}",
        ]
        for one in found
    ]
    head = [
        "layer",
        "channels",
        "pixels",
        "torch (ms)",
        "this project (ms)",
        "times faster",
        "error, torch",
        "error, this project",
    ]
    return f"{_measured(record, found)}\n\n{_table(head, rows)}"


def history(records: Sequence[Record]) -> str:
    """Every record with a comparison, oldest first: how many times faster than the usual loop."""
    rows = []
    for record in records:
        _, found = newest([record], "throughput")
        values = [
            ratio(rates(found, "ours", model, precision), rates(found, "usual_loop", model))
            for model, precision in _COMPARED
        ]
        if any(value is not None for value in values):
            rows.append([record["date"][:10], _commit(record), record["machine"]["hardware"], *map(_times, values)])
    head = ["date", "commit", "machine", *(f"{MODELS[model]}, {precision}" for model, precision in _COMPARED)]
    return _table(head, rows) if rows else "Not measured yet.\n"


_COMPARED = [(model, precision) for model in MODELS for precision in ("fp32", "bf16")]


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _commit(record: Record) -> str:
    return f"{record['commit'][:7]}{' with changes' if record['dirty'] else ''}"


def _measured(record: Record, found: Sequence[Measurement], hardware: str = "") -> str:
    """Where and how a part's measurements were made; those without a round are made once, however many the record has."""
    machine, asked, rounds = record["machine"], record["asked"], len({one.get("round") for one in found})
    how = f"median of {rounds} rounds" if rounds > 1 else "one round"
    return (
        f"{record['date'][:10]}, commit {_commit(record)}, on {hardware or machine['hardware']}, Python {machine['python']},"
        f" torch {machine['packages']['torch']}; {asked['dataset']}, batches of 50, {how}."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    line: Callable[[Sequence[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)]) + "\n"
