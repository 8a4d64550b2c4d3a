"""The read API: its names, what it costs to import, and the page that shows it, run as it stands."""

import dataclasses
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import repro as package
from repro.api import Store, beside
from repro.errors import InputError
from tests.starting import environment

PROJECT = Path(__file__).parent.parent
PAGE = (PROJECT / "docs/api.md").read_text()


def test_the_names_are_those_that_are_documented():
    assert package.__all__ == ["load"]
    assert str(inspect.signature(package.load)) == "(uri: 'str | None' = None) -> 'Store'"
    names = {name for name in dir(Store) if not name.startswith("_")}
    assert (
        names
        == {"runs", "epochs", "table", "claims", "model"}
        == set(re.findall(r"^\| `store\.(\w+)", PAGE, re.MULTILINE))
    )


def test_the_import_is_quick_and_loads_nothing():
    code = (
        "import sys, time; started = time.process_time(); import repro\n"
        "print(time.process_time() - started, *[name for name in sys.modules if name.startswith('repro.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    seconds, *modules = done.stdout.split()
    assert float(seconds) < 0.1
    assert modules == []


SHOWN = """
assert len(store.runs) == 2 and set(store.epochs["epoch"]) == {1, 2, 3}
assert list(store.table("tiny")["variant"]) == ["narrow", "wide"] and "model.first_filters" not in store.table("tiny")
assert {"claim", "verdict", "why", "n", "run_ids"} <= set(store.claims)
assert int(store.table("tiny")["parameters"].max()) == max(
    sum(p.numel() for p in store.model(run).parameters()) for run in store.runs["run_id"])
assert not network.training
from repro.errors import InputError
for wrong in (lambda: store.model("none"), lambda: store.table("none")):
    try:
        wrong()
    except InputError as error:
        print(error)
"""


def test_the_page_runs_as_it_stands(repro, sweep_words, tmp_path):
    assert repro(*sweep_words).returncode == 0
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)).replace('"reproducibility"', '"tiny"')
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + SHOWN], cwd=tmp_path, env=environment(), capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unknown run of the store 'none'" in done.stdout
    assert "unknown study of the store 'none'" in done.stdout
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_network_of_a_run_in_bf16_is_the_one_that_was_evaluated():
    import torch

    from repro import studies
    from repro.training.models import build, multiplied, saved

    settings = {"data.dataset": "digits", "training.precision": "bf16"}
    plan = studies.plan([(studies.load("demo"), ["squeezenet_bn"])], seeds=[0], overrides=settings)
    weights = saved(build(plan.runs[0].spec.model).state_dict())
    store = Store.__new__(Store)
    store._writer = lambda: SimpleNamespace(artifact=lambda run_id, name: weights)
    run = SimpleNamespace(run_id="r", key=plan.runs[0].key)
    store._contents = SimpleNamespace(runs=[run], sweeps=[SimpleNamespace(plan=plan)])
    network = store.model("r")
    assert {parameter.dtype for parameter in multiplied(network)} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in network.parameters()), "it can be trained further"
    logits = network(torch.zeros(2, 3, 32, 32))
    assert (logits.shape, logits.dtype) == ((2, 10), torch.float32)


def test_the_digest_of_a_run_is_fetched_once_for_all_tables():
    fetched = []

    def artifact(run, name):
        fetched.append((run.run_id, name))
        return b'{"weights_digest": "%s"}' % (b"a" * 64)

    found = beside(lambda: SimpleNamespace(artifact=artifact))
    assert {found.weights(SimpleNamespace(run_id="x")) for _ in range(3)} == {"a" * 64}
    assert fetched == [("x", "journal.jsonl")]


def test_class_names_may_hold_what_separates_cells(tmp_path):
    """They are those of a folder of images."""
    from repro.execution import worker
    from repro.records import RunResult

    fields = {field.name: 0 for field in dataclasses.fields(RunResult)}
    result = RunResult(**fields | {"confusion": ((3, 1), (0, 4))})
    training = SimpleNamespace(
        best_state=dict, predictions=None, data=SimpleNamespace(classes=("cats, small", 'dogs "big"'))
    )
    worker._keep(SimpleNamespace(folder=tmp_path, export=False), training, result)
    content = (tmp_path / "confusion.csv").read_bytes()
    stored = SimpleNamespace(artifact=lambda run_id, name: content)
    assert beside(lambda: stored).confusion(SimpleNamespace(run_id="r")) == [[3, 1], [0, 4]]


@pytest.mark.parametrize("name", ["architecture", "confusion", "predictions"])
@pytest.mark.parametrize("damage", ["empty", "cut off", "bytes changed"])
def test_a_damaged_artifact_is_one_line(name, damage):
    file = io.BytesIO()
    numbers = np.arange(500, dtype=np.uint8)
    np.savez_compressed(file, val_predicted=numbers, val_true=numbers, test_predicted=numbers, test_true=numbers)
    whole = file.getvalue()
    content = {"empty": b"", "cut off": whole[:200], "bytes changed": whole[:80] + bytes(20) + whole[100:]}[damage]
    stored = SimpleNamespace(artifact=lambda run_id, name: content)
    with pytest.raises(InputError, match=rf"^run r: its {name}\.\w+ cannot be read \("):
        getattr(beside(lambda: stored), name)(SimpleNamespace(run_id="r"))
