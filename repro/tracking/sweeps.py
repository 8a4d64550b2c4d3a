"""The runs of sweeps in a store: the parents of the runs that they train, opened with a plan and closed with a table."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from repro import owner, studies
from repro.records import Environment
from repro.studies import Plan
from repro.tracking import api, entries, notes, stored, views
from repro.tracking.names import SCHEMA, Tag
from repro.tracking.runs import MADE_UP, NO_SUCH_RUN, Runs, cut
from repro.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

Status: TypeAlias = Literal["FINISHED", "KILLED", "FAILED"]


class Sweeps(Runs):
    """The sweeps of one store. A call may be repeated, as those of the writer."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._sweeps: dict[str, str] = {}  # sweep.json -> run id, until it is closed
        self._former: dict[str, list[str]] = {}  # run id of a sweep -> those that were stopped before, of the same plan
        self._notes: dict[str, str] = {}  # key -> description of its run
        self._ends: dict[str, int] = {}  # run id of a sweep -> when it was first tried to close it, in ms since 1970

    def open_sweep(
        self,
        plan: Plan,
        *,
        reused: Mapping[str, str],
        journals: Collection[str] = (),
        environment: Environment | None = None,
        start_ms: int | None = None,
    ) -> str:
        """The parent run of a sweep: the one that `mlflow run` has made, that of the same plan that was stopped, or a new one.

        Args:
            plan: what the sweep asks for.
            reused: key -> run id of the finished runs that it does not train again.
            journals: keys of those that are finished in their journals, and new to the store.
            environment: how it computes.
            start_ms: when a new one began, in ms since 1970; None is now.

        Returns:
            The run id.
        """
        self.explain(plan)
        content = studies.dump(plan)
        params = {name: stored.param(value) for name, value in plan.overrides.items()}
        tags: dict[str, str] = {
            Tag.KIND: "sweep",
            Tag.SCHEMA: SCHEMA,
            Tag.STUDY: plan.name,
            Tag.PLAN: hashlib.sha256(content.encode()).hexdigest()[:16],
            Tag.OWNER: owner.me(),
            Tag.NOTE: notes.of_sweep(plan, reused, journals),
            **(entries.computed(environment) if environment else {}),
        }
        with self.store.errors():
            views.offer(self.store.client, self.store.experiment_id)
            given, run_id = self._given(), self._sweeps.get(content)
            if run_id is None and given is not None and self._may_take(given, content):
                run_id = given.info.run_id
            former = self._former.get(run_id or "")
            if former is None:
                former = self._stopped(tags[Tag.PLAN], run_id)
            if run_id is None and given is None and former:
                run_id = former.pop()
                self.store.client.update_run(run_id, "RUNNING")
            if run_id is None:
                tags |= entries.source(environment) | ({Tag.PARENT: given.info.run_id} if given is not None else {})
                run_id = self._create_run(plan.name, tags, start_ms)
            self._sweeps[content], self._former[run_id] = run_id, former  # before anything else can fail
            self._log(run_id, params=params, tags=tags)
            if given is not None and given.info.run_id == run_id and MADE_UP.fullmatch(given.info.run_name or ""):
                self.store.client.update_run(run_id, name=plan.name)
            there = f"#/experiments/{self.store.experiment_id}/runs/{run_id}"
            for one in former:
                self._log(one, tags={Tag.NOTE: f"Stopped; continued in [{plan.name}, run {run_id[:8]}]({there})."})
        self.log_files(
            run_id, {"sweep.json": content.encode(), "reused.json": json.dumps(dict(reused), indent=1).encode()}
        )
        return run_id

    def explain(self, plan: Plan) -> None:
        """The runs of a plan that are not in the store yet get a description once they are."""
        self._notes |= notes.of_runs(plan)

    def close_sweep(
        self,
        parent: str,
        status: Status,
        files: Mapping[str, bytes | Path],
        description: str | None = None,
        metrics: Mapping[str, float] | None = None,
        ended_ms: int | None = None,
    ) -> None:
        """Stores a sweep's tables and ends it; under `mlflow run` its status is left to MLflow.

        Args:
            parent: the sweep's run id.
            status: how it ended.
            files: artifact path -> bytes or file.
            description: what MLflow's UI shows above the run; None keeps the one it was opened with.
            metrics: its counts and best results.
            ended_ms: when it ended, in ms since 1970; None is now.
        """
        from mlflow.entities import Metric

        self.log_files(parent, files)
        # the same at every try: MLflow would keep a point of another time twice
        end = self._ends.setdefault(parent, ended_ms or int(1000 * time.time()))
        points = [Metric(name, value, end, 0) for name, value in (metrics or {}).items()]
        with self.store.errors():
            note = {str(Tag.NOTE): cut(description)} if description else {}
            self._log(parent, points, tags={Tag.CLOSED: status, **note})
            if parent != self.attached():
                self.store.client.set_terminated(parent, status, ended_ms)
            for one in self._former.pop(parent, []) if status == "FINISHED" else []:
                self.store.client.set_terminated(one, status)  # its work is done
        self._sweeps = {content: run for content, run in self._sweeps.items() if run != parent}

    def attached(self) -> str | None:
        """The run that `mlflow run` has made for this process, where it is one of this store and not at its end."""
        with self.store.errors():
            given = self._given()
        return given.info.run_id if given is not None else None

    def _given(self) -> Run | None:
        """The run that MLFLOW_RUN_ID names; None for one that is not `mlflow run`'s, or not RUNNING any more."""
        from mlflow.exceptions import MlflowException

        run_id = os.environ.get("MLFLOW_RUN_ID")
        if not run_id:
            return None
        try:
            run: Run = self.store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in NO_SUCH_RUN:
                raise
            return None
        made = run.data.tags.get(Tag.SOURCE_TYPE) == "PROJECT" and run.info.lifecycle_stage == "active"
        return run if made and run.info.status == "RUNNING" else None

    def _stopped(self, plan: str, besides: str | None) -> list[str]:
        """The sweeps of a plan that did not come to their end, the latest at the end."""
        found = api.search(self.store, f"tags.`{Tag.KIND}` = 'sweep' AND tags.`{Tag.PLAN}` = '{plan}'")
        stopped = [run for run in found if run.info.status in {"KILLED", "FAILED"} and run.info.run_id != besides]
        return [run.info.run_id for run in sorted(stopped, key=lambda run: run.info.start_time)]

    def _may_take(self, given: Run, content: str) -> bool:
        """Whether a run of `mlflow run` may hold a plan: it holds none yet, or this one."""
        if given.data.tags.get(Tag.KIND) != "sweep":
            return True
        return self.artifact(given.info.run_id, "sweep.json") in {None, content.encode()}
