"""Which of a variant's models is the best: of all seeds and folds, also in a store of an earlier version."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zipfile
from dataclasses import replace

from repro.spec import ADDED_LATER
from repro.tracking import models, reader
from repro.tracking.store import connect
from repro.tracking.writer import Writer


def test_a_variant_has_one_best_model_also_where_an_earlier_version_has_trained_a_seed(fresh, runs, trained) -> None:
    writer = Writer(connect(fresh().uri))
    client = writer.store.client
    for accuracy in (0.75, 0.80):
        run = trained(runs)
        run.start(packages=dict.fromkeys(("mlflow", "numpy", "torch"), "1.0"))
        run.train(1)
        run.finish(best_val_accuracy=accuracy)
        with zipfile.ZipFile(run.folder / models.PROGRAM, "w") as program:
            program.writestr("model/extra/about.json", json.dumps({"classes": ["a", "b"], "example": [[[[0, 0, 0]]]]}))
        run_id = writer.publish(run.folder, parent=None).run_id
        assert not [*models.ship(writer, reader.read(writer.store.uri, plans=False).runs, {run.key}, runs, "best")]
        if accuracy == 0.75:  # as an earlier version left it: without the later fields, its group of another name
            (model,) = client.search_logged_models([writer.store.experiment_id])
            client.set_logged_model_tags(model.model_id, {"repro.group": "another"})
            with contextlib.closing(sqlite3.connect(writer.store.database)) as store, store:
                store.executemany("DELETE FROM params WHERE key = ?", [(name,) for name in ADDED_LATER])
    found = client.search_logged_models([writer.store.experiment_id])
    assert {model.source_run_id == run_id: model.tags["repro.best"] for model in found} == {
        True: "true",
        False: "false",
    }
    assert len({model.tags["repro.group"] for model in found}) == 1


def test_folds_are_of_one_variant_and_other_settings_are_not(fresh, runs, trained) -> None:
    run = trained(runs)
    run.train(1)
    run.finish()
    writer = Writer(connect(fresh().uri))
    writer.publish(run.folder, parent=None)
    (row,) = reader.read(writer.store.uri, plans=False).runs

    def group(**data: str) -> str:
        return models.group(
            replace(row, params={**row.params, **{f"data.{name}": value for name, value in data.items()}})
        )

    assert group(folds="5", fold="0") == group(folds="5", fold="4") != group()
    assert group(augmentation="flip") != group() == models.group(row)
