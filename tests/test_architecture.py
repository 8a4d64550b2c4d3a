"""The order of the house: who may import what, what is never called, and what loads without what."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "repro"

# A module imports only modules that stand before its own, or beside it in the same package.
ORDER = [
    "errors",
    "owner",
    "locks",
    "declarations",
    "validation",
    "datasets",
    "recipe",
    "networks",
    "layout",
    "spec",
    "published",
    "grids",
    "study",
    "studies",
    "built",
    "records",
    "training",
    "journal",
    "rows",
    "reporting",
    "tracking",
    "execution",
    "api",
    "cli",
    "__main__",
]

# Every third-party library with the modules that may import it; one that is not listed may not be imported at all.
HOMES = {
    "PIL": ["training/imagefolder.py"],
    "adabound": ["training/"],
    "click": ["cli/"],
    "jinja2": ["reporting/page.py"],
    "markupsafe": ["reporting/page.py"],
    "matplotlib": ["reporting/drawing.py", "reporting/figures.py", "reporting/pictures.py", "reporting/style.py"],
    "mlflow": ["tracking/"],
    "numpy": [
        "training/",
        "rows.py",
        "reporting/",
        "tracking/",
        "execution/predictions.py",
        "api.py",
        "cli/reports.py",
    ],
    "pandas": ["reporting/", "api.py"],
    "pydantic": [
        "validation.py",
        "datasets.py",
        "recipe.py",
        "networks.py",
        "spec.py",
        "published.py",
        "studies.py",
        "study.py",
        "reporting/claims.py",
        "execution/executors/entries.py",
    ],
    "pydantic_core": ["networks.py", "cli/words.py"],
    "rich": ["cli/"],
    "scipy": ["reporting/stats.py"],
    "sklearn": ["training/"],
    "torch": ["training/", "api.py", "execution/worker.py", "execution/checkpoint.py", "execution/predictions.py"],
    "torchvision": ["training/"],
    "yaml": ["declarations.py", "execution/worker.py", "tracking/"],
}

# Beyond the order: who needs torch or MLflow is started in a process of its own, or imported when it is needed.
NEVER = [  # modules, what they do not import anywhere, functions included
    (("journal", "rows", "reporting", "tracking"), "training"),
    (("training", "journal", "rows", "reporting"), "tracking"),
]

MOST_LINES = 350


@dataclass(frozen=True)
class Module:
    path: Path
    name: str
    """Dotted, without `repro`: `training.models.alexnet`; "" for the package itself."""

    @property
    def part(self) -> str:
        """The part of the house: `training`."""
        return self.name.partition(".")[0]

    @property
    def place(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(), str(self.path))


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append(Module(path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)))
    return tuple(found)


MODULES = [pytest.param(module, id=module.place) for module in modules()]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported, also in functions and for types only, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                yield (f"repro.{alias.name}" if node.module == "repro" else str(node.module), node.lineno)


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_what_stands_before_them(module):
    if not module.name:
        needed = {"__future__", "typing", "repro.api"}  # the last in `load` alone, for types aside
        assert {name for name, _ in imports(module.tree)} == needed, "the package itself imports nothing else"
        return
    assert module.part in ORDER, f"say in ORDER where {module.part} stands"
    for name, line in imports(module.tree):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package == "repro" and other not in {"", "__version__", module.part}:
            assert other in ORDER, f"{module.place}:{line} imports {name}"
            assert ORDER.index(other) < ORDER.index(module.part), (
                f"{module.place}:{line} imports {name}, which comes later"
            )


@pytest.mark.parametrize("module", MODULES)
def test_third_party_libraries_stay_in_their_homes(module):
    for name, line in imports(module.tree):
        library = name.partition(".")[0]
        if library == "repro" or library in sys.stdlib_module_names:
            continue
        assert library in HOMES, f"{module.place}:{line} imports {library}, which has no home"
        assert module.place.startswith(tuple(HOMES[library])), f"{module.place}:{line} imports {library}"


@pytest.mark.parametrize(("parts", "never"), NEVER)
def test_parts_that_do_not_know_each_other(parts, never):
    for module in modules():
        if module.part in parts:
            for name, line in imports(module.tree):
                assert name.split(".")[:2] != ["repro", never], f"{module.place}:{line} imports {name}"


def test_the_walk_sees_imports_in_functions_and_for_types():
    tree = ast.parse(
        "import a.b\nif TYPE_CHECKING:\n from c.d import e\ndef f():\n import g\n from repro import spec, studies as s\n"
        "class H:\n def m(self):\n  try:\n   from repro.cli import main\n  except E:\n   import i as j\n"
    )
    assert {name for name, _ in imports(tree)} == {"a.b", "c.d", "g", "repro.spec", "repro.studies", "repro.cli", "i"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_at_one_sitting(module):
    assert len(module.path.read_text().splitlines()) <= MOST_LINES


# Whatever is loaded is data. CIFAR-10 itself is a pickle: torchvision reads it, after its MD5 was checked.
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "runpy"}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_ATTRIBUTES = {
    "system": "os.system",
    "popen": "os.popen",
    "load_model": "a model of MLflow is a pickle",
    "full_load": "yaml.full_load",
    "full_load_all": "yaml.full_load_all",
    "unsafe_load": "yaml.unsafe_load",
    "unsafe_load_all": "yaml.unsafe_load_all",
    "load_all": "yaml.load_all",
    "Unpickler": "pickle.Unpickler",
    "read_pickle": "pandas.read_pickle",
}


def offences(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Calls that can run what is in a file or in a string."""
    for name, line in imports(tree):
        if name.partition(".")[0] in UNSAFE_MODULES:
            yield line, f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in UNSAFE_ATTRIBUTES:
            yield node.lineno, UNSAFE_ATTRIBUTES[node.attr]
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        called = ast.unparse(node.func)
        if called in UNSAFE_NAMES:
            yield node.lineno, f"{called}()"
        if called in {"torch.load", "load"} and given.get("weights_only") != "True" and called.startswith("torch"):
            yield node.lineno, "torch.load without weights_only=True"
        if called == "yaml.load" and given.get("Loader") != "_Loader":
            yield node.lineno, "yaml.load without the project's own loader"
        if given.get("shell", "False") != "False":
            yield node.lineno, "a shell"
        if given.get("allow_pickle", "False") != "False" or given.get("trust_remote_code", "False") != "False":
            yield node.lineno, "allow_pickle"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_run_that_stands_in_a_file_or_a_string(module):
    assert list(offences(module.tree)) == []
    for node in ast.walk(module.tree):  # nor under another name, which the walk would not see
        if isinstance(node, ast.ImportFrom) and node.module in {"torch", "yaml", "os", "subprocess"}:
            names = {alias.name for alias in node.names}
            assert not names & {"load", "system", "popen", *UNSAFE_ATTRIBUTES}, f"{module.place}:{node.lineno}"
        if isinstance(node, ast.Import):
            renamed = {alias.name for alias in node.names if alias.asname}
            assert not renamed & {"torch", "yaml", "os", "subprocess"}, f"{module.place}:{node.lineno}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n import marshal",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=wanted)",
        "np.load(path, allow_pickle=True)",
        "mlflow.pytorch.load_model(uri)",
    ],
)
def test_the_walk_sees_what_is_never_done(code):
    assert list(offences(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "torch.load(path, weights_only=True)", "yaml.load(text, Loader=_Loader)", "json.load(file)"],
)
def test_the_walk_lets_pass_what_is_harmless(code):
    assert not list(offences(ast.parse(code)))


def test_the_projects_loader_builds_plain_values_only():
    import yaml

    from repro.declarations import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    assert set(_Loader.yaml_constructors) == set(yaml.SafeLoader.yaml_constructors)
    assert not _Loader.yaml_multi_constructors


BLOCKED = """
import importlib, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

names, BLOCKED = json.loads(sys.argv[1])
sys.meta_path.insert(0, Absent())
for name in names:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded(*parts: str, without: tuple[str, ...] = ()) -> set[str]:
    """Imports all modules of some parts where some libraries are not installed; returns what is loaded then."""
    names = ["repro" + (f".{module.name}" if module.name else "") for module in modules() if belongs(module, parts)]
    assert names, f"no module belongs to {parts}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BLOCKED, json.dumps([names, without])],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def belongs(module: Module, parts: tuple[str, ...]) -> bool:
    return any(module.name == part or module.name.startswith(f"{part}.") for part in parts)


def test_a_library_that_is_not_installed_is_noticed():
    with pytest.raises(AssertionError, match="yaml is not installed here"):
        loaded("declarations", without=("yaml",))


HEAVY = ("torch", "torchvision", "sklearn", "mlflow", "matplotlib", "scipy", "pandas")
SCREEN = ("click", "rich")
LOADS_WITHOUT = {
    (
        "errors",
        "declarations",
        "validation",
        "datasets",
        "recipe",
        "networks",
        "layout",
        "spec",
        "published",
        "grids",
        "study",
        "studies",
        "records",
        "journal",
    ): (
        *HEAVY,
        *SCREEN,
        "numpy",
    ),
    ("rows",): (*HEAVY, *SCREEN),
    ("reporting",): (*SCREEN, "torch", "torchvision", "sklearn", "mlflow"),
    ("training",): (*SCREEN, "mlflow", "matplotlib"),
    ("tracking",): ("torch", "torchvision"),
    ("execution.worker",): (*SCREEN, "mlflow", "matplotlib", "pandas"),
    ("execution.sweep", "execution.executors.local", "execution.events", "execution.job"): (*HEAVY, *SCREEN, "numpy"),
}


@pytest.mark.parametrize("parts", LOADS_WITHOUT, ids=", ".join)
def test_a_part_loads_where_what_it_does_not_need_is_not_installed(parts):
    assert not loaded(*parts, without=LOADS_WITHOUT[parts]) & set(LOADS_WITHOUT[parts])
