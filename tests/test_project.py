"""The files around the code agree with it: MLproject, pins, ignore rules, citation, and what a wheel carries."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import click
import pytest
import yaml

from repro import __version__
from repro.cli import cli, options, prepared, sweeps
from repro.spec import flatten, resolve

PROJECT = Path(__file__).parent.parent
MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text())
ENTRIES = MLPROJECT["entry_points"]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
CONTEXT = click.Context(cli)


def lines(name: str) -> list[str]:
    """The lines of a file that are neither empty nor comments."""
    return [line for line in (PROJECT / name).read_text().splitlines() if line and not line.startswith("#")]


def command(name: str) -> click.Command:
    found = cli.get_command(CONTEXT, name)
    assert found is not None
    return found


class TestMLproject:
    def test_the_entry_points_are_those_that_are_documented(self):
        assert set(ENTRIES) == {"main", "paper", "reproducibility", "ablation", "experiment", "compare"}
        assert MLPROJECT["python_env"] == "python_env.yaml"
        assert (PROJECT / MLPROJECT["python_env"]).is_file()

    @pytest.mark.parametrize("name", ENTRIES)
    def test_a_command_is_the_entry_points_own_and_starts_the_code_of_this_folder(self, name):
        words = ENTRIES[name]["command"].split()
        assert words[:4] == ["python", "-m", "repro", {"main": "demo"}.get(name, name)]

    @pytest.mark.parametrize("name", ENTRIES)
    def test_each_parameter_is_passed_on_once_unquoted_as_the_option_of_its_name(self, name):
        words = ENTRIES[name]["command"].split()[4:]
        passed = dict(zip(words[::2], words[1::2], strict=True))
        assert passed == {
            f"--{parameter.replace('_', '-')}": f"{{{parameter}}}" for parameter in ENTRIES[name]["parameters"]
        }

    @pytest.mark.parametrize(
        ("name", "parameter"), [(name, parameter) for name in ENTRIES for parameter in ENTRIES[name]["parameters"]]
    )
    def test_a_parameter_has_the_default_of_its_option(self, name, parameter):
        declared = ENTRIES[name]["parameters"][parameter]
        by_flag = {
            flag: option for option in command(ENTRIES[name]["command"].split()[3]).params for flag in option.opts
        }
        option = by_flag[f"--{parameter.replace('_', '-')}"]
        assert declared["type"] == "string"
        assert ("default" not in declared) == option.required
        if not option.required:
            told = option.default is not None and parameter not in options._SETTINGS  # `set` may say those, too
            assert declared["default"] == (str(option.default) if told else "")


OTHER = {
    "dataset": {"main": "cifar10"},
    "data_dir": "elsewhere",
    "seeds": "5-7",
    "epochs": "3",
    "patience": "4",
    "batch_size": "10",
    "workers": "3",
    "device": "cuda:1",
    "set": "model.dropout=0.1,optimizer.lr=1e-2",
    "model": "squeezenet",
    "batchnorm": "on",
    "fire": "removed",
    "study": "squeeze_ratio",
    "variant": "residual,residual_2_added",
}


class TestEveryParameterReachesSomething:
    """`mlflow run` puts quoted values in place of the names in a command; each changes what is trained, or how."""

    @pytest.fixture
    def asked(self, monkeypatch, tmp_path):
        """What an entry point would train, and how, with these values in place of its defaults."""
        captured = []
        monkeypatch.chdir(tmp_path)  # in the project's own folder `make demo` may have left data
        monkeypatch.setattr(prepared, "cache", lambda dataset, folder: folder / dataset)
        monkeypatch.setattr(
            sweeps, "_train", lambda plan, given: captured.append((plan.runs, options.make_settings(given, plan)))
        )

        def ask(name: str, **values: str):
            given = {
                parameter: declared.get("default", "residual")
                for parameter, declared in ENTRIES[name]["parameters"].items()
            }
            quoted = {parameter: shlex.quote(value) for parameter, value in {**given, **values}.items()}
            cli.main(shlex.split(ENTRIES[name]["command"].format(**quoted))[3:], standalone_mode=False)
            return captured.pop()

        return ask

    @pytest.mark.parametrize(
        ("name", "parameter"),
        [(name, parameter) for name in ENTRIES if name != "compare" for parameter in ENTRIES[name]["parameters"]],
    )
    def test_another_value_is_another_job(self, asked, name, parameter):
        other = OTHER[parameter]
        if isinstance(other, dict):
            other = other.get(name, "digits")
        assert asked(name, **{parameter: other}) != asked(name)

    @pytest.mark.parametrize("name", [name for name in ENTRIES if name != "compare"])
    def test_what_set_says_contradicts_no_default(self, asked, name):
        settings = {"data.dataset": OTHER["dataset"].get(name, "digits")}
        settings |= {f"training.{field}": 3 for field in ("epochs", "patience", "batch_size")}
        runs, _ = asked(name, set=",".join(f"{field}={value}" for field, value in settings.items()))
        assert settings.items() <= flatten(runs[0].spec).items()

    def test_the_main_job_is_the_demo_on_the_embedded_data(self, asked):
        runs, _ = asked("main")
        assert {(run.study, run.spec.data.dataset, run.spec.training.epochs) for run in runs} == {("demo", "digits", 8)}

    def test_all_of_them_at_once(self, asked):
        runs, settings = asked(
            "ablation",
            fire="removed",
            batchnorm="on",
            dataset="digits",
            data_dir="my data",
            seeds="3,4",
            epochs="2",
            patience="9",
            batch_size="7",
            workers="2",
            device="cuda",
            set="model.pools=[conv1, fire4],optimizer.final_lr=0.1",
        )
        assert [(run.variant, run.seed) for run in runs] == [("fire_removed_bn", 3), ("fire_removed_bn", 4)]
        spec = runs[0].spec
        assert (spec.data.dataset, spec.model.pools, spec.optimizer.final_lr) == ("digits", ("conv1", "fire4"), 0.1)
        assert (spec.training.epochs, spec.training.patience, spec.training.batch_size) == (2, 9, 7)
        assert (settings.cache, settings.workers, settings.device) == (Path("my data/digits"), 2, "cuda")

    def test_what_is_not_given_is_what_the_study_sets(self, asked, tmp_path):
        study = tmp_path / "sizes.yaml"
        study.write_text(
            "{study: sizes, title: Sizes, question: Which, base: reproducibility/squeezenet, include_base: false, variants: {"
            "small: {title: Small, set: {training.batch_size: 16}},"
            "large: {title: Large, set: {training.batch_size: 512, training.epochs: 3}}}}"
        )

        def trained(**values):
            runs, settings = asked("experiment", study=str(study), seeds="0", **values)
            assert settings.cache == Path("data") / runs[0].spec.data.dataset
            return [(run.spec.training.batch_size, run.spec.training.epochs, run.spec.data.dataset) for run in runs]

        assert trained() == [(16, 100, "cifar10"), (512, 3, "cifar10")]
        assert trained(batch_size="32", dataset="digits") == [(32, 100, "digits"), (32, 3, "digits")]


class TestCommands:
    @pytest.mark.parametrize("name", ["paper", "reproducibility", "ablation", "experiment"])
    def test_help_names_the_defaults_of_the_spec(self, name):
        shown = {option.name: option.help for option in command(name).params if isinstance(option, click.Option)}
        protocol = flatten(resolve({"model.name": "squeezenet"}, "test"))
        for setting in ("data.dataset", "training.epochs", "training.patience", "training.batch_size"):
            assert f"[default: {protocol[setting]}, or the study's]" in shown[setting.partition(".")[2]]

    @pytest.mark.parametrize("name", cli.list_commands(CONTEXT))
    def test_every_option_takes_a_value(self, name):
        assert command(name).name == name
        for option in command(name).params:
            if isinstance(option, click.Option):
                assert not option.is_flag, f"mlflow run passes `--{option.name} true`"
                assert option.nargs == 1

    @pytest.mark.parametrize("name", cli.list_commands(CONTEXT))
    def test_every_switch_works_alone(self, name):
        for option in command(name).params:
            if option.type is click.BOOL:
                context = click.Command(name, params=[option]).make_context(name, [*option.opts])
                assert context.params == {option.name: True}

    @pytest.mark.parametrize(
        ("flag", "value", "field", "expected"),
        [
            ("--store-patience", "5", "patience_seconds", 5.0),
            ("--checkpoint-seconds", "7", "checkpoint_seconds", 7.0),
            ("--experiment", "mine", "experiment", "mine"),
            ("--models", "all", "models", "all"),
            ("--tracking-uri", "http://here:1", "uri", "http://here:1"),
            ("--runs-dir", "there", "runs", Path("there")),
            ("--workers", "9", "workers", 9),
            ("--threads", "2", "threads", 2),
            ("--deterministic", "false", "deterministic", False),
            ("--fresh", "true", "fresh", True),
            ("--offline", "true", "offline", True),
        ],
    )
    def test_an_option_of_how_runs_are_computed_is_a_setting(self, monkeypatch, flag, value, field, expected):
        seen = []
        monkeypatch.setattr(prepared, "cache_of", lambda data, folder: folder / data.dataset)
        monkeypatch.setattr(sweeps, "_train", lambda plan, given: seen.append(options.make_settings(given, plan)))
        for words in (["demo"], ["demo", flag, value]):
            cli.main(words, standalone_mode=False)
        default, given = seen
        assert getattr(default, field) != getattr(given, field) == expected
        assert replace(given, **{field: getattr(default, field)}) == default

    def test_a_parameter_that_mlproject_does_not_declare_arrives_with_its_underscore(self, monkeypatch):
        seen = []
        monkeypatch.setattr(sweeps, "_train", lambda _plan, given: seen.append(given))
        cli.main(["demo", "--runs_dir", "there", "--checkpoint_seconds", "5"], standalone_mode=False)
        assert (seen[0]["runs_dir"], seen[0]["checkpoint_seconds"]) == ("there", 5)


WATCHED = """
import json, os, runpy, sys
leave = os._exit
def told(code):
    print(json.dumps([code, sorted(sys.modules)]))
    sys.stdout.flush()
    leave(code)
os._exit = told
sys.argv = ["repro", *sys.argv[1:]]
runpy.run_module("repro", run_name="__main__", alter_sys=True)
"""
SLOW = {"torch", "torchvision", "mlflow", "matplotlib", "scipy", "sklearn", "pandas"}


@pytest.mark.parametrize(
    ("words", "light"),
    [
        (["--help"], {"pydantic", "numpy", "rich", "yaml"}),
        (["--version"], {"pydantic", "numpy", "rich", "yaml"}),
        (["ablation", "--help"], {"pydantic", "numpy", "rich", "yaml"}),
        (["compare", "--help"], {"pydantic", "numpy", "rich", "yaml"}),
        (["plan", "--study", "ablation"], {"numpy", "rich"}),
    ],
    ids=lambda value: " ".join(sorted(value) if isinstance(value, set) else value),
)
def test_a_quick_answer_loads_nothing_slow(words, light, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not {name.partition(".")[0] for name in loaded} & (SLOW | light)


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


PINS = dict(line.lower().replace("_", "-").split("==") for line in lines("constraints.txt"))
NEEDED = [*PYPROJECT["dependencies"], *PYPROJECT["optional-dependencies"]["dev"]]


class TestPins:
    def test_every_pin_is_exact_and_stands_once(self):
        for line in lines("constraints.txt"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
        assert len(PINS) == len(lines("constraints.txt"))

    def test_the_versions_that_results_rest_on(self):
        assert {name: PINS[name] for name in ("torch", "torchvision", "adabound")} == {
            "torch": "2.13.0",
            "torchvision": "0.28.0",
            "adabound": "0.0.5",
        }
        assert PINS["mlflow"].startswith("3.17.")

    @pytest.mark.parametrize("requirement", NEEDED)
    def test_a_pin_lies_in_its_range(self, requirement):
        pinned = numbers(PINS[name_of(requirement)])
        for operator, bound in re.findall(r"(>=|<)([0-9.]+)", requirement):
            assert pinned >= numbers(bound) if operator == ">=" else pinned < numbers(bound)

    def test_mlflow_builds_from_the_same_pins(self):
        assert yaml.safe_load((PROJECT / "python_env.yaml").read_text()) == {"dependencies": ["-r constraints.txt"]}

    @pytest.mark.parametrize(
        ("folder", "needed"), [("repro", PYPROJECT["dependencies"]), ("tests", NEEDED)], ids=["repro", "tests"]
    )
    def test_what_is_imported_is_required(self, folder, needed):
        known = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "pydantic_core": "pydantic"}
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    library = name.partition(".")[0]
                    if library not in {"repro", "tests", "benchmarks", "docs", *sys.stdlib_module_names}:
                        assert known.get(library, library) in set(map(name_of, needed)), f"{path}: {library}"


class TestFiles:
    def test_the_ignore_rules_hold_those_of_the_store(self):
        assert set(lines("mlruns.gitignore")) <= set(lines(".gitignore"))
        assert {"/mlruns", "/mlflow.db*", "/runs", "/report", "/data"} <= set(lines("mlruns.gitignore"))

    def test_links_to_data_and_to_a_store_elsewhere_are_ignored(self, tmp_path):
        """Otherwise every run would count as one of uncommitted changes."""
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        (tmp_path / ".gitignore").write_bytes((PROJECT / ".gitignore").read_bytes())
        for name in ("data", "mlruns", "runs", "report"):
            (tmp_path / name).symlink_to(tmp_path)
        listed = ["git", "status", "--porcelain"]
        seen = subprocess.run(listed, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert seen == "?? .gitignore\n"

    def test_nothing_that_is_ignored_is_committed(self):
        if not (PROJECT / ".git").exists():
            pytest.skip("not a git repository")
        listed = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
        assert subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=True).stdout == ""

    def test_the_licence_is_that_of_the_metadata(self):
        text = (PROJECT / "LICENSE").read_text()
        assert text.startswith("MIT License\n\nCopyright (c) 2026 The squeezenet-repro authors\n")
        assert PYPROJECT["license"] == "MIT" == yaml.safe_load((PROJECT / "CITATION.cff").read_text())["license"]

    def test_the_changelog_begins_with_what_is_not_released_yet(self):
        text = (PROJECT / "CHANGELOG.md").read_text()
        assert re.match(r"# Changelog\n\n## Unreleased\n\n### [A-Z][a-z ]+\n\n- [A-Z]", text)


class TestCitation:
    CITATION = yaml.safe_load((PROJECT / "CITATION.cff").read_text())

    def test_it_is_a_citation_file(self):
        assert self.CITATION["cff-version"] == "1.2.0"
        assert {"message", "title", "authors", "type"} <= set(self.CITATION)

    @pytest.mark.parametrize(
        ("title", "families", "year"),
        [
            ("SqueezeNet Reproducibility and Analysis of its Architecture", ["Babs", "Wang", "Malik"], None),
            ("SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", ["Iandola"], 2016),
            ("ImageNet Classification with Deep Convolutional", ["Krizhevsky", "Sutskever", "Hinton"], 2012),
            ("Adaptive Gradient Methods with Dynamic Bound", ["Luo", "Xiong", "Liu"], 2019),
        ],
    )
    def test_it_cites_what_the_project_rests_on(self, title, families, year):
        (cited,) = [reference for reference in self.CITATION["references"] if reference["title"].startswith(title)]
        assert [author["family-names"] for author in cited["authors"]][: len(families)] == families
        assert cited.get("year") == year
        assert all(author["given-names"] for author in cited["authors"])

    def test_each_reference_says_what_kind_it_is(self):
        kinds = {"unpublished", "article", "conference-paper", "report"}
        assert {reference["type"] for reference in self.CITATION["references"]} <= kinds


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project as a wheel, and the folder in which it is unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    building = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(PROJECT)]
    built = subprocess.run(building, capture_output=True, text=True, check=False)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip(f"no package index to get hatchling from: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    assert path.name == f"squeezenet_repro-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "installed")
        return folder / "installed", {name for name in archive.namelist() if not name.endswith("/")}


class TestWheel:
    def test_everything_of_the_package_and_the_declarations_travel_along(self, wheel):
        _, names = wheel
        package = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "repro").rglob("*") if path.is_file()}
        package = {name for name in package if "__pycache__" not in name}
        declared = {
            f"repro/experiments/{path.relative_to(PROJECT / 'experiments').as_posix()}"
            for path in (PROJECT / "experiments").rglob("*")
            if path.is_file()
        }
        assert {name for name in names if name.startswith("repro/")} == package | declared
        assert any(name.startswith("repro/experiments/claims/") for name in names)
        assert "repro/reporting/report.mplstyle" in names
        assert {name.partition("/")[0] for name in names} == {"repro", f"squeezenet_repro-{__version__}.dist-info"}

    def test_the_licence_and_the_command_travel_along(self, wheel):
        folder, names = wheel
        (metadata,) = folder.glob("*.dist-info/METADATA")
        assert "License-Expression: MIT" in metadata.read_text()
        assert any(name.endswith("licenses/LICENSE") for name in names)
        assert "repro = repro.__main__:run" in next(folder.glob("*.dist-info/entry_points.txt")).read_text()

    def test_it_works_from_any_folder(self, wheel, tmp_path):
        folder, _ = wheel

        def python(*words: str) -> str:
            env = os.environ | {"PYTHONPATH": str(folder)}
            started = subprocess.run(
                [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
            )
            assert started.returncode == 0, started.stderr
            return started.stdout

        assert "4 rows, 4 runs" in python("-m", "repro", "plan", "--study", "ablation", "--seeds", "0")
        where = python("-c", "from repro import studies; print(studies.DECLARATIONS)").strip()
        assert Path(where) == folder / "repro" / "experiments"
