from __future__ import annotations

from pathlib import Path
from typing import get_args

from repro.datasets import DataSpec
from repro.networks import MODELS
from repro.recipe import OptimizerSpec, TrainingSpec
from repro.records import EPOCH_METRICS, RESULT_METRICS
from repro.spec import RunSpec
from repro.tracking import names


def test_every_field_of_every_spec_is_explained() -> None:
    groups = {
        "model": MODELS,
        "data": (DataSpec,),
        "optimizer": get_args(OptimizerSpec),
        "training": (TrainingSpec,),
    }
    fields = {f"{group}.{name}" for group, kinds in groups.items() for kind in kinds for name in kind.model_fields}
    assert set(names.PARAMS) == fields | (set(RunSpec.model_fields) - set(groups))


def test_every_metric_is_explained() -> None:
    assert set(names.METRICS) == {*EPOCH_METRICS, *RESULT_METRICS, "parameter_count"}


def test_every_tag_is_explained() -> None:
    listed = (names.RUN_TAGS, names.SWEEP_TAGS, names.MODEL_TAGS, names.VERSION_TAGS)
    assert set().union(*listed) == set(names.Tag)


def test_the_document_is_up_to_date() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "tracking.md").read_text()
    generated = page.partition("<!-- generated: names -->\n")[2].partition("<!-- end -->")[0]
    assert generated == names.markdown(), "run `make docs`"
    for name in [*names.PARAMS, *names.METRICS, *names.Tag, *names.RUN_ARTIFACTS, *names.SWEEP_ARTIFACTS]:
        assert f"| `{name}` | " in generated
