"""YAML as the project reads it: what is written comes back, and whatever else there is in a file is one line."""

from __future__ import annotations

import math
import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from repro import declarations
from repro.errors import InputError

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Co"]), max_size=20).filter(
    lambda text: not re.fullmatch(r"[-+.\d]+[eE][-+\d]+", text)  # PyYAML leaves 0E0 bare, which YAML 1.2 calls a number
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PRINTABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PRINTABLE, inner, max_size=4),
    max_leaves=20,
)


def read(folder, content: str | bytes):
    path = folder / "declared.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return declarations.read(path)


def one_line(excinfo) -> str:
    message = str(excinfo.value)
    assert len(message.splitlines()) == 1, message
    return message


@given(VALUES)
def test_what_is_written_as_yaml_is_read_back(tmp_path_factory, value):
    written = yaml.safe_dump(value, allow_unicode=True)
    assert declarations.parse_value(written, "value") == value
    assert read(tmp_path_factory.getbasetemp(), written) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_as_python_prints_it_is_that_number(value):
    read_back = declarations.parse_value(repr(value), "value")
    assert isinstance(read_back, float)
    assert math.copysign(1, read_back) == math.copysign(1, value)
    assert read_back == value


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", ".1e-2", "+1e-3", "0.1e-2", "1.0e-03"])
def test_an_exponent_makes_a_number(text):
    assert declarations.parse_value(text, "value") == pytest.approx(1e-3, rel=1e-15)


@pytest.mark.parametrize("text", ["0100", "1:30", "0x10", "0b1", "1:30.5", "007", "."])
def test_what_only_yaml_1_1_calls_a_number_is_text(text):
    assert declarations.parse_value(text, "value") == text


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("-5", -5), ("50_000", 50_000), ("1_0.5", 10.5), (".5", 0.5)])
def test_a_plain_number_is_one(text, value):
    assert declarations.parse_value(text, "value") == value


@pytest.mark.parametrize(("text", "value"), [("1e3", 1000.0), ("-2E2", -200.0), ("3.5e1", 35.0)])
def test_an_exponent_needs_no_sign(text, value):
    assert declarations.parse_value(text, "value") == value


@pytest.mark.parametrize("text", ["e-3", "1e", "1e-", "fire3", "1e3x", "1-3", "simple"])
def test_what_is_no_number_stays_text(text):
    assert declarations.parse_value(text, "value") == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("[fire3, fire5]", ["fire3", "fire5"]), ("true", True), ("", None), ("null", None), ('"1e-3"', "1e-3")],
)
def test_a_value_is_read_as_yaml(text, value):
    assert declarations.parse_value(text, "value") == value


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2", '"a": 1\na: 2', "{a: 1, a: 1}", "x:\n  - {b: 1, c: 2, b: 3}", "1: a\n1: b", "? a\n: 1\n? a\n: 2"],
)
def test_a_key_that_stands_twice_is_refused_with_its_place(tmp_path, text):
    with pytest.raises(InputError, match=r"line \d+, column \d+: key '.' stands twice") as excinfo:
        read(tmp_path, text)
    assert one_line(excinfo).startswith(str(tmp_path / "declared.yaml"))


def test_equal_keys_in_different_mappings_are_fine(tmp_path):
    assert read(tmp_path, "a: {k: 1}\nb: {k: 2}") == {"a": {"k": 1}, "b": {"k": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!python/tuple [1, 2]",
        "!!python/object/new:os.system [echo]",
        "!mine 5",
        "a: !!python/module:os",
    ],
)
def test_no_tag_reaches_python(tmp_path, text):
    with pytest.raises(InputError, match="could not determine a constructor for the tag"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "content",
    [
        "a: [1, 2",
        "a: b: c",
        "\t- x",
        "a: 'unclosed",
        "%YAML 9.9\n---\n",
        "--- 1\n--- 2",
        "*nowhere",
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 20_000,
        b"\xff\xfe\xfa",
        b"\x00\x01\x02\x03",
        bytes(range(256)),
        "!!int ''",
        "!!int x",
        "!!float ''",
        "!!bool maybe",
        "!!timestamp soon",
        "2024-13-45",
        "9" * 5_000,
        "? [a]\n: 1",
        "? {a: 1}\n: 1",
        "<<: 5",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_broken_file_is_one_line_with_its_name(tmp_path, content):
    with pytest.raises(InputError) as excinfo:
        read(tmp_path, content)
    message = one_line(excinfo)
    assert message.startswith(f"{tmp_path / 'declared.yaml'}: ")
    assert re.search(r"not valid YAML|cannot be read", message)
    assert len(message) < 500


def test_aliases_are_cheap_however_often_they_nest(tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 40)
    )
    read_back = read(tmp_path, bomb)  # 10 ** 40 leaves, 40 lists
    assert read_back["a39"][0] is read_back["a38"]


def test_a_file_that_is_not_there_or_is_a_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read \\(No such file") as excinfo:
        declarations.read(tmp_path / "none.yaml")
    one_line(excinfo)
    with pytest.raises(InputError, match="cannot be read \\(Is a directory"):
        declarations.read(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        declarations.read(tmp_path / "nul\0.yaml")


@given(st.text() | st.text(alphabet="[]{}:,-?&*!|>'\"%@`#~ \n\tab1.e+=<"))
@example("!!int ''")
@example("&a [*a]")
@example("? &a {*a : 1}\n: 2")
def test_no_text_raises_anything_but_an_input_error(text):
    try:
        declarations.parse_value(text, "set: model.name")
    except InputError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert message.startswith("set: model.name: ")


@given(st.binary())
def test_no_bytes_raise_anything_but_an_input_error(tmp_path_factory, content):
    try:
        read(tmp_path_factory.getbasetemp(), content)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
