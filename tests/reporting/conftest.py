"""Synthetic stores: what tracking.reader would give, without MLflow and without training.

The figures of a run follow from its key alone, so the same calls give the same store on every machine.
"""

import hashlib
import itertools

import numpy as np
import pytest

from repro.records import RESULT_METRICS
from repro.rows import Contents, Curve, RunRow, SweepRow
from repro.spec import flatten
from repro.studies import load, plan
from repro.study import Study


class StoreBuilder:
    """Sweeps and their finished runs, one after the other, a second apart.

    store.sweep("reproducibility", "residual", seeds=(0, 1, 2), overrides={"training.epochs": 3})
    store.sweep("ablation", variants=("fire_removed",), unfinished={("fire_removed", 2)})
    contents = store.contents()
    """

    def __init__(self):
        self.sweeps, self.runs, self.clock = [], [], itertools.count(1_700_000_000_000, 1000)

    def sweep(
        self,
        *studies,
        seeds=(0, 1, 2),
        variants=None,
        overrides=None,
        unfinished=(),
        metrics=None,
        epochs=6,
        curves=True,
        again=False,
        spread=0.004,
        commit="c0ffee" * 6 + "c0ff",
        hardware="Test CPU, 4 cores",
        outcome="finished",
    ):
        """Plans these studies (slugs or Study values) and finishes what no earlier sweep finished.

        metrics(planned) gives final metrics that replace the made-up ones; None in place of a value leaves one out.
        unfinished holds (variant, seed) pairs; again=True trains keys that have a run a second time.
        """
        loaded = [study if isinstance(study, Study) else load(study) for study in studies]
        asked = [(study, [slug for slug in study.variants if variants is None or slug in variants]) for study in loaded]
        made = plan(asked, seeds=seeds, overrides=overrides, name=loaded[0].study if len(loaded) == 1 else "paper")
        self.sweeps.append(SweepRow(f"sweep{len(self.sweeps):04d}", "1", next(self.clock), made))
        finished = {run.key for run in self.runs}
        for planned in made.unique:
            known = planned.key in finished
            if (planned.variant, planned.seed) in unfinished or (known and not again):
                continue
            final = made_up(planned, spread, epochs) | (metrics(planned) if metrics else {})
            started = next(self.clock)
            self.runs.append(
                RunRow(
                    run_id=f"{len(self.runs):04d}{planned.key}",
                    experiment_id="1",
                    key=planned.key,
                    study=planned.study,
                    variant=planned.variant,
                    seed=planned.seed,
                    outcome=outcome,
                    commit=commit,
                    dirty=False,
                    hardware=hardware,
                    side_by_side=2,
                    started_ms=started,
                    ended_ms=started + 500,
                    artifact_uri="/nowhere",
                    params={name: str(value) for name, value in flatten(planned.spec).items()},
                    metrics={name: value for name, value in final.items() if value is not None},
                    curve=made_up_curve(final, epochs) if curves else None,
                )
            )
        return self

    def contents(self):
        """The store so far, newest first."""
        return Contents("sqlite:///made_up.db", tuple(self.sweeps[::-1]), tuple(self.runs[::-1]), ())


def made_up(planned, spread, epochs):
    """Final metrics near the published ones, with a normal deviation that the key decides."""
    random = np.random.default_rng(int(hashlib.sha256(planned.key.encode()).hexdigest()[:12], 16))
    published = planned.published
    accuracy = (published.accuracy or published.accuracy_at_most or 70.0) / 100 + spread * random.standard_normal()
    size = published.size or 2.9
    final = {
        "test_loss": 0.9 + spread * random.standard_normal(),
        "test_accuracy": accuracy - 0.01 + spread * random.standard_normal(),
        "best_val_accuracy": accuracy,
        "best_epoch": min(epochs, max(1, epochs - 2 + planned.seed % 3)),
        "epochs_run": epochs,
        "mean_epoch_seconds": (published.epoch_seconds or 30.0) + random.standard_normal(),
        "model_size_mib": size + 0.02,
        "model_size_legacy_mib": size,
        "parameters": round(size * 2**18),
        "multiply_adds": round(size * 2**22),
    }
    assert set(final) == set(RESULT_METRICS)
    return {name: float(value) for name, value in final.items()}


def made_up_curve(final, epochs):
    """Curves that rise to the best validation accuracy at the best epoch, with training a little above."""
    epoch = np.arange(1, epochs + 1)
    best = final.get("best_val_accuracy") or 0.1
    peak = int(final.get("best_epoch") or epochs)
    val = best * (1 - 0.5 * np.exp(-epoch / 2.0))
    val[peak - 1] = best
    return Curve(
        epoch=epoch.astype(np.int64),
        train_loss=2.3 * np.exp(-epoch / 4.0),
        train_accuracy=np.minimum(val + 0.02 * epoch / epochs, 1.0),
        val_loss=2.3 * np.exp(-epoch / 5.0),
        val_accuracy=val,
        epoch_seconds=np.full(epochs, final.get("mean_epoch_seconds") or 1.0),
    )


@pytest.fixture
def store():
    """An empty StoreBuilder."""
    return StoreBuilder()


@pytest.fixture(scope="session")
def paper_contents():
    """Every table of the paper, three seeds each; squeezenet_bn also on digits for three epochs; one seed unfinished."""
    builder = StoreBuilder()
    builder.sweep(
        "reproducibility",
        seeds=(0,),
        variants=("squeezenet_bn",),
        overrides={"data.dataset": "digits", "training.epochs": 3},
    )
    builder.sweep("reproducibility", seeds=(0, 1))
    builder.sweep("reproducibility", seeds=(2,))
    builder.sweep("ablation", unfinished={("fire_removed_bn", 2)})
    builder.sweep(
        "residual", "squeeze_ratio", "expand_3x3", "first_kernel", "learning_rate", "best", "batch_norm", "optimizer"
    )
    return builder.contents()
