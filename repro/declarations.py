"""YAML as the project reads it: safe, strict about doubled keys, and with 1e-3 a number (YAML 1.1 calls it a string).

What an option takes in words is read here, too: settings and seeds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from repro.errors import InputError, nearest, shown

_LAST_SEED = 2**31 - 1
_MOST_SEEDS = 10_000


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and reads exponents as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, or an error at the second of two equal keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in {_INT, _FLOAT}]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Numbers as YAML 1.2 has them: 1e-3 is one, and neither is 0100 the number 64 nor 1:30 the number 90.
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"""^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)
            |[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+
            |[-+]?\.(?:inf|Inf|INF)
            |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def read(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: the file cannot be read or is not YAML: one line with the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name that no file can have
        remedy = ""
        if isinstance(error, FileNotFoundError):
            beside = [file.name for file in path.parent.glob("*.y*ml")]
            remedy = nearest(path.name, beside) or "; give the path of a YAML file that exists"
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}){remedy}") from None
    return _load(text, str(path))


def parse_value(text: str, where: str) -> Any:
    """One value as YAML: "5" is a number, "[fire3, fire5]" a list, "simple" a string."""
    return _load(text, f"{where}: {shown(text)} (examples: 5, 0.25, simple, [fire3, fire5])")


def parse_overrides(text: str) -> dict[str, Any]:
    """`model.first_kernel=5,model.pools=[conv1, fire4]` as dotted settings; commas inside brackets do not split."""
    parts: list[str] = []
    depth = 0
    for piece in text.split(","):
        if depth:
            parts[-1] += "," + piece
        else:
            parts.append(piece)
        depth += sum(piece.count(c) for c in "[{(") - sum(piece.count(c) for c in "]})")
    overrides: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in parts)):
        dotted, equals, value = part.partition("=")
        if not equals or not dotted.strip():
            raise InputError(
                f"set: {shown(part)} is not name=value (example: model.first_kernel=5,model.residual=simple)"
            )
        dotted = dotted.strip()
        if dotted in {"seed", "semantics"}:
            raise InputError(f"set: {dotted} cannot be set here; seeds are given with --seeds")
        if dotted in overrides:
            raise InputError(f"set: {shown(dotted)} is given twice")
        overrides[dotted] = parse_value(value.strip(), f"set: {shown(dotted)}")
    return overrides


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2`, `0-9` or `0,3,7-9` as seeds, in order, each once."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if not bounds:
            raise InputError(f"seeds: {shown(text)} is not a list of whole numbers from 0 (examples: 0,1,2 or 0-9)")
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if last < first or last > _LAST_SEED or len(seeds) + last - first >= _MOST_SEEDS:
            raise InputError(
                f"seeds: {part.strip()!r} is out of range (allowed: ascending, up to {_LAST_SEED}, at most {_MOST_SEEDS}"
                " seeds; examples: 0,1,2 or 0-9)"
            )
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except Exception as error:  # PyYAML lets through what its constructors raise: KeyError, OverflowError ...
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or f"{type(error).__name__}: {error}"
        raise InputError(f"{where}: not valid YAML{at}: {' '.join(problem.split())[:200]}") from None
