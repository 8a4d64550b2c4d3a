"""A run says how its steps were computed: in its journal, beside it, and to whoever trains it again."""

from dataclasses import asdict, replace

from repro import journal
from repro.execution.environment import gather
from repro.execution.verify import compare
from repro.records import Environment
from repro.tracking import entries

HERE = gather(device="cpu", threads=1, side_by_side=1, deterministic=True)


def test_a_run_writes_down_how_it_computed(repro, sweep_words, tmp_path):
    repro(*sweep_words, "--variant", "narrow", "--offline", "true")
    (folder,) = journal.find(tmp_path / "runs")
    known = journal.read(folder)
    assert (known.attempts[0].environment.step, known.attempts[0].environment.step_reason) == ("fast", "")
    assert "step: fast\n" in (folder / "environment.txt").read_text()
    assert entries.tags(known)["repro.step"] == "fast"


def test_a_journal_of_an_earlier_version_says_nothing_of_it():
    former = {name: value for name, value in asdict(HERE).items() if not name.startswith(("step", "training"))}
    before = Environment(**former)
    assert (before.step, before.step_reason) == ("", "")
    assert compare(before, replace(HERE, step="fast")) == ()
    assert compare(replace(HERE, step="fast"), replace(HERE, step="autograd", step_reason="why")) == (
        ("step", "fast", "autograd"),
    )
