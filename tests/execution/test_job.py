"""What a sweep tells a worker arrives as it was said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from repro import studies
from repro.execution.job import Job

words = st.text(max_size=20)
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).map(Path)
STUDIES = studies.declared()
SPECS = [run.spec for run in studies.plan([(study, list(study.variants)) for study in STUDIES], seeds=[0, 7]).runs]
jobs = st.builds(
    Job,
    spec=st.sampled_from(SPECS),
    study=words,
    variant=words,
    folder=paths,
    cache=paths,
    device=words,
    threads=st.integers(1),
    side_by_side=st.integers(1),
    deterministic=st.booleans(),
    checkpoint_seconds=st.floats(0, allow_infinity=False),
    until=st.none() | st.integers(1),
)


@given(jobs)
def test_a_job_arrives_as_it_was_sent_on_one_line(job):
    line = job.dump()
    assert len(line.splitlines()) == 1
    assert line.isascii()
    arrived = Job.parse(line)
    assert arrived == job
    assert arrived.spec.key == job.spec.key
    assert Job.parse(line + "\n") == job


def test_every_field_is_sent():
    named = {field.name for field in dataclasses.fields(Job)}
    job = Job(SPECS[0], "study", "variant", Path("runs/key"), Path("data/cache"), "cpu", 1, 2, True, 30.0)
    assert set(json.loads(job.dump())) == named
