"""docs/reliability.md and the tests that it names."""

from __future__ import annotations

import ast
import re

from tests.starting import PROJECT


def test_each_promise_names_a_test_that_exists() -> None:
    lines = (PROJECT / "docs" / "reliability.md").read_text().splitlines()
    promises = [line for line in lines if line.startswith("| ") and not line.startswith("| promise ")]
    named = [re.search(r"\| `(test_\w+)` \|$", line) for line in promises]
    assert all(named), [line for line, name in zip(promises, named, strict=True) if name is None]
    tests = {
        node.name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name[1] for name in named if name} <= tests
