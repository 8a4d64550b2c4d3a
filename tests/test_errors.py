"""What a user reads when something is wrong: one line, the nearest name, an exit code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError, ReproError, shown, unknown

yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_exit_codes_tell_bad_input_from_failure():
    assert (ReproError.exit_code, InputError.exit_code) == (1, 2)
    assert issubclass(InputError, ReproError)


def test_unknown_names_the_nearest_and_all_allowed():
    error = unknown("study", "residul", ["squeeze_ratio", "residual", "best"])
    assert isinstance(error, InputError)
    assert str(error) == ("unknown study 'residul'; did you mean 'residual'? (allowed: best, residual, squeeze_ratio)")


@pytest.mark.parametrize("given_name", ["zzz", "", None, 5, ["residual"]])
def test_unknown_guesses_nothing_where_nothing_is_near(given_name):
    assert "did you mean" not in str(unknown("study", given_name, ["residual", "best"]))


def test_unknown_ignores_case():
    assert "did you mean 'alexnet'" in str(unknown("value", "AlexNet", ["alexnet", "squeezenet"]))


@given(yaml_values)
def test_any_value_is_shown_on_one_short_line(value):
    assert shown(value).splitlines() in ([shown(value)], [])
    assert len(shown(value)) < 2_000


@pytest.mark.parametrize("kind", ["text", "lists", "integer", "mapping"])
def test_a_huge_value_is_cut(kind):
    values = {
        "text": "x" * 10**6,
        "lists": [["y"] * 1000] * 1000,
        "integer": 10**5000,
        "mapping": {i: i for i in range(10**5)},
    }
    assert len(shown(values[kind])) < 2_000


def test_a_value_that_holds_itself_is_shown():
    loop: list[object] = []
    loop.append(loop)
    assert "..." in shown(loop)


@given(st.text(), st.lists(st.sampled_from(["alexnet", "squeezenet", "best"]), min_size=1))
def test_unknown_is_one_line_for_any_name(name, allowed):
    assert len(str(unknown("model", name, allowed)).splitlines()) == 1
