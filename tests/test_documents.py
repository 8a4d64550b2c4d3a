"""Every command that a document shows is one that the program takes."""

import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import click
import pytest
import yaml

from repro.cli import cli
from repro.errors import ReproError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = re.compile(r"^(?:    |exec |`)*((?:exec )?(?:repro|mlflow run) [^`#\n]*)", re.MULTILINE)
INLINE = re.compile(r"`(repro [a-z][^`]*|mlflow run [^`]*)`")
ENTRIES = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


def shown() -> list[tuple[str, str]]:
    found = {}
    for page in PAGES:
        text = page.read_text()
        if page.name == "cli.md":
            text = ""  # it is the program's own help
        blocks = "\n".join(re.findall(r"^    .*$", text, re.MULTILINE)).replace("\\\n", " ")
        for command in [*LINE.findall(blocks), *INLINE.findall(text.replace("\n", " "))]:
            found[page.name, " ".join(command.removeprefix("exec ").split())] = None
    return list(found)


def help_texts() -> list[tuple[str, str]]:
    context = click.Context(cli, info_name="repro")
    texts = {name: cli.get_command(context, name).help or "" for name in ["", *cli.list_commands(context)] if name}
    return [
        (name, " ".join(line.split("  ")[0].split()))
        for name, text in texts.items()
        for line in re.findall(r"^\s*(repro .*)$", text, re.MULTILINE)
    ]


@pytest.mark.parametrize(("place", "command"), [*shown(), *help_texts()])
def test_a_command_that_is_shown_can_be_given(place, command) -> None:
    words = shlex.split(re.sub(r"\.\.\.|<[^>]+>", "x", command))
    if words[0] == "repro":
        if len(words) == 1 or words[1].startswith("-"):
            return
        name_alone = len(words) == 2
        found = cli.get_command(click.Context(cli), words[1])
        assert found is not None, f"{place}: no command {words[1]}"
        try:
            found.make_context(words[1], words[2:], parent=click.Context(cli))
        except click.MissingParameter as error:
            assert name_alone, f"{place}: {command}: {error}"
        except (click.ClickException, ReproError) as error:
            pytest.fail(f"{place}: {command}: {error}")
        return
    options = words[3:]
    entry = ENTRIES[options[options.index("-e") + 1] if "-e" in options else "main"]
    given = [value.partition("=")[0] for name, value in pairwise(options) if name == "-P"]
    assert set(given) <= set(entry["parameters"]), f"{place}: {command}"


def test_there_are_commands_to_look_at() -> None:
    assert len(shown()) > 30
    assert len(help_texts()) > 15


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_plots_of_a_page_are_drawn_from_the_tables_of_a_report(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    (tmp_path / "report").mkdir()
    shutil.copytree(ROOT / "results" / "tables", "report/tables")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plot-your-own.md").read_text(), re.DOTALL)
    exec("\n".join(blocks), {})
    assert {path.name for path in tmp_path.glob("*.pdf")} == {"curves.pdf", "published.pdf"}


@pytest.mark.slow
def test_the_commands_that_look_at_runs_are_given_in_the_order_of_the_pages(repro, tmp_path: Path) -> None:
    """Those that train and need no file are run by the tests of their pages."""
    budget = ["--dataset", "digits", "--seeds", "0", "--epochs", "1", "--offline"]
    for words in (["ablation"], ["experiment", "--study", "residual"]):
        trained = repro(*words, *budget)
        assert trained.returncode == 0, trained.stderr
    looks = re.compile(r"repro (sync|compare|status|audit|reap)( |$)")
    pages = [command for page, command in shown() if page != "own-study.md" and not re.search(r"\.(yaml|zip)", command)]
    commands = dict.fromkeys(command for command in pages if looks.match(command))
    for command in commands:
        done = repro(*shlex.split(command)[1:])
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert len(commands) >= 8
    assert (tmp_path / "report" / "index.html").is_file()
