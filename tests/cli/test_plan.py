"""`repro plan --explain`: why a run is new."""

from __future__ import annotations

import json

import pytest

from repro.cli.nearest import nearest, words
from repro.spec import flatten, resolve
from repro.tracking.stored import param


def existing(**specs):
    return {key: (f"study/{key}", {n: param(v) for n, v in flatten(spec).items()}) for key, spec in specs.items()}


def squeezenet(**dotted):
    return resolve({"model.name": "squeezenet", **dotted}, "test")


def test_the_nearest_run_has_the_most_settings_in_common() -> None:
    known = existing(
        alexnet=resolve({"model.name": "alexnet"}, "test"),
        small=squeezenet(**{"model.base_e": 64, "model.dropout": 0.2}),
    )
    new = squeezenet(**{"model.base_e": 64, "optimizer.lr": 0.01})
    assert words(nearest(new, known)) == (
        "new: differs from small (study/small) in model.dropout 0.2 -> 0.5, optimizer.lr 0.001 -> 0.01"
    )
    rates = dict.fromkeys(["lr", "final_lr", "beta1", "beta2", "gamma", "eps", "weight_decay"], 0.3)
    other = resolve({"model.name": "alexnet"} | {f"optimizer.{name}": rate for name, rate in rates.items()}, "test")
    assert words(nearest(other, known)).endswith("optimizer.weight_decay 0.0 -> 0.3 and 2 more")
    assert words(nearest(new, {})) == "new: no run exists yet"


def test_a_field_that_one_of_the_two_lacks_is_shown() -> None:
    known = existing(sgd=squeezenet(**{"optimizer.name": "sgd", "optimizer.lr": 0.001}))
    found = nearest(squeezenet(**{"optimizer.name": "adam"}), known)
    assert found["differs"]["optimizer.momentum"] == ["0.9", None]
    assert found["differs"]["optimizer.beta1"] == [None, "0.9"]


@pytest.mark.parametrize("offline", [True, False])
def test_plan_says_it_of_runs_in_journals_and_in_the_store(repro, sweep_words, offline, tmp_path) -> None:
    trained = repro(*sweep_words, "--variant", "narrow", "--offline", str(offline).lower())
    assert trained.returncode == 0, trained.stderr
    if not offline:
        (tmp_path / "runs").rename(tmp_path / "elsewhere")
    words = [word if word != "experiment" else "plan" for word in sweep_words]
    said = repro(*words, "--explain").stdout.splitlines()
    assert "finished" in said[0]
    assert said[2].strip().startswith("new: differs from ")
    assert said[2].endswith("(tiny/narrow seed 0) in model.first_filters 8 -> 12")
    rows = json.loads(repro(*words, "--explain", "--json").stdout)
    assert rows[1]["nearest"]["differs"] == {"model.first_filters": ["8", "12"]}
    assert "nearest" not in rows[0]
