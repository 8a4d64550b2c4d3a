"""What results/ holds is what its journals give: anybody can make it again."""

import re
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
OWN = {"README.md", "runs.zip"}


def texts(folder: Path) -> dict[str, str]:
    """The report's text files by name; ids that a store gives to runs are numbered in the order of the ledger."""
    ids = re.findall(r",([0-9a-f]{32}),", (folder / "tables/runs.csv").read_text())
    numbered = {run[:shown]: f"run {number}" for number, run in enumerate(ids) for shown in (8, 32)}
    found = {}
    for name in (folder / "files.txt").read_text().splitlines()[1:]:
        if not name.endswith((".png", ".pdf")) and not name.startswith("#"):
            text = (folder / name).read_text()
            found[name] = re.sub(
                r"\b([0-9a-f]{32}|[0-9a-f]{8})\b", lambda found: numbered.get(found[0], found[0]), text
            )
    return found


def test_the_journals_give_the_same_report_byte_for_byte(repro, tmp_path: Path) -> None:
    assert repro("sync", str(RESULTS / "runs.zip"), "--models", "none").returncode == 0
    done = repro("compare", "--out", "again")
    assert done.returncode == 0, done.stderr
    ours, theirs = texts(tmp_path / "again"), texts(RESULTS)
    assert ours.keys() == theirs.keys()
    assert [name for name, text in ours.items() if text != theirs[name]] == []


def test_results_holds_nothing_else() -> None:
    listed = set((RESULTS / "files.txt").read_text().splitlines()[1:])
    there = {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*") if path.is_file()}
    assert {name for name in there - listed - OWN if not name.startswith("earlier/")} == {"files.txt"} - listed
