"""The keys and setting ids of the first release, as they were recorded then (`recorded_keys.json`).

Whoever has to change that file makes every run trained so far the answer to another question. A field that is added gets
a line in `spec.ADDED_LATER` instead.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro import studies
from repro.reporting.join import setting_id, setting_of
from repro.spec import RunSpec, resolve

RECORDED = json.loads((Path(__file__).parent / "recorded_keys.json").read_text())


def test_the_declared_studies_ask_what_they_asked_but_for_the_weight_decay():
    chosen = [(study, studies.select(study)) for study in studies.declared()]
    keys: dict[str, list[str]] = {}
    for run in studies.plan(chosen, seeds=[0, 1, 2], overrides={"optimizer.weight_decay": 0.0}).runs:
        keys.setdefault(f"{run.study}/{run.variant}", []).append(run.key)
    assert {name: keys[name] for name in RECORDED["declared"]} == RECORDED["declared"]


@pytest.mark.parametrize("recorded", RECORDED["specs"], ids=lambda recorded: recorded["key"])
def test_settings_have_the_key_they_had(recorded):
    assert resolve(recorded["settings"], "test").key == recorded["key"]


@pytest.mark.parametrize("recorded", RECORDED["specs"], ids=lambda recorded: recorded["key"])
def test_a_spec_that_was_stored_has_the_key_it_had(recorded):
    assert RunSpec.model_validate(recorded["resolved"]).key == recorded["key"]


@pytest.mark.parametrize("recorded", RECORDED["settings"], ids=lambda recorded: recorded["id"])
def test_settings_of_tables_have_the_id_they_had(recorded):
    chosen = [(studies.load("reproducibility"), ["squeezenet_bn"])]
    plan = studies.plan(chosen, seeds=[0], overrides=recorded["overrides"])
    assert setting_id(setting_of(plan)) == recorded["id"]


@pytest.mark.parametrize(
    "spellings",
    [
        [{"model.dropout": 0.0}, {"model.dropout": -0.0}, {"model.dropout": 0}],
        [{"optimizer.weight_decay": 0}, {"optimizer.weight_decay": -0.0}],
        [{"optimizer.name": "sgd", "optimizer.lr": 1}, {"optimizer.lr": 1.0, "optimizer.name": "sgd"}],
    ],
)
def test_spellings_of_one_value_are_one_setting(spellings):
    chosen = [(studies.load("reproducibility"), ["squeezenet_bn"])]
    plans = [studies.plan(chosen, seeds=[0], overrides=one) for one in spellings]
    assert len({plan.runs[0].key for plan in plans}) == 1
    assert len({setting_id(setting_of(plan)) for plan in plans}) == 1
