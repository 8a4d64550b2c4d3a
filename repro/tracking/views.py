"""What MLflow's UI shows of an experiment: charts of accuracy and loss over the epochs, by a link.

MLflow keeps a shared view as JSON in a tag of the experiment; a link that names the tag opens it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from repro.tracking.names import Tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

LINK = "&compareRunsMode=CHART&viewStateShareKey=curves"
"""What is added to the link of an experiment's runs."""

_CHARTS = ("val_accuracy", "train_accuracy", "val_loss", "train_loss")
_VIEW = {
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": str(Tag.VARIANT)}]},
    "compareRunSections": [
        {"uuid": name, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": True}
        for name in ("Model metrics", "System metrics")
    ],
    "compareRunCharts": [
        {"uuid": metric, "metricKey": metric, "selectedMetricKeys": [metric], "displayName": metric, "type": "LINE"}
        | {"metricSectionId": "Model metrics", "runsCountToCompare": 10, "deleted": False, "isGenerated": False}
        | {"xAxisKey": "step", "xAxisScaleType": "linear", "useGlobalXaxisKey": True, "selectedXAxisMetricKey": ""}
        | {"yAxisKey": "metric", "yAxisExpressions": [], "scaleType": "linear", "range": {}, "ignoreOutliers": False}
        | {"lineSmoothness": 0, "useGlobalLineSmoothing": True}
        for metric in _CHARTS
    ],
}
TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # MLflow 3.17 opens on its page for language models all the same
    "mlflow.sharedViewState.curves": json.dumps(_VIEW),
}


def offer(client: MlflowClient, experiment_id: str) -> None:
    """Gives an experiment the tags that it does not have; what a user has chosen stays."""
    there = client.get_experiment(experiment_id).tags
    for tag, value in TAGS.items():
        if tag not in there:
            client.set_experiment_tag(experiment_id, tag, value)
