"""Validation whose errors are one line: where, which key, what was given, what is allowed."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from repro.errors import InputError, shown, unknown


class Strict(BaseModel):
    """Base of every declaration: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def expanded(path: str) -> Path:
    """A path in which `~` and `~name` are the home folders of users."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: no such user; give the full path") from None


_Model = TypeVar("_Model", bound=BaseModel)
_Value = TypeVar("_Value")


def described(group: str, *declarations: type[BaseModel]) -> dict[str, str]:
    """`group.field` -> what it means, as the first of some declarations with that field describes it."""
    found: dict[str, str] = {}
    for declaration in declarations:
        for name, field in declaration.model_fields.items():
            if field.description is not None:
                found.setdefault(f"{group}.{name}", " ".join(field.description.split()))
    return found


def validated(model: type[_Model], given: Any, where: str) -> _Model:
    """`given` as `model`, or one line: where, which key, what is wrong, what is allowed."""
    if given is None:  # what an empty YAML file holds
        required = [name for name, field in model.model_fields.items() if field.is_required()]
        raise InputError(f"{where}: is empty (allowed: a group of settings); it needs {', '.join(required)}")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{where}: {_one_line(model, error)}") from None


def typed(kind: type[_Value], fields: Mapping[str, Any]) -> _Value:
    """The fields of a JSON object as the dataclass `kind`, which may hold others: none unknown, none converted.

    Raises:
        ValueError: a field is missing, unknown or of another type; one line.
    """
    try:
        return cast(_Value, _adapter(cast(Hashable, kind)).validate_json(json.dumps([fields]))[0])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}") from None


def plain(value: object) -> dict[str, Any]:
    """The fields of a dataclass as JSON has them: what `typed` makes it from."""
    return cast(dict[str, Any], _adapter(cast(Hashable, type(value))).dump_python([value], mode="json")[0])


@cache
def _adapter(kind: Hashable) -> TypeAdapter[list[Any]]:
    return TypeAdapter(list[kind], config=ConfigDict(strict=True, extra="forbid"))  # type: ignore[valid-type]


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    loc, given, context = first["loc"], first.get("input"), first.get("ctx", {})
    keys, declarations, field = _place(model, loc)
    dotted = ".".join(keys)
    match first["type"]:
        case "value_error":
            return str(context["error"])  # our validators name their field themselves
        case "extra_forbidden":
            _, declarations, _ = _place(model, loc[:-1])
            names = {name for one in declarations for name in one.model_fields}
            return _at(keys[:-1], str(unknown("key", loc[-1], names)))
        case "missing" if isinstance(loc[-1], int):
            return f"{'.'.join(keys[:-1])}: got {shown(given)} (allowed: at least {loc[-1] + 1} entries)"
        case "missing":
            return f"{dotted}: is required"
        case "union_tag_not_found":
            return f"{dotted}.name: is required (allowed: {', '.join(sorted(map(_tag, declarations)))})"
        case "union_tag_invalid":
            tag = given["name"] if isinstance(given, Mapping) else context["tag"]
            return f"{dotted}.name: {unknown('value', tag, map(_tag, declarations))}"
        case "literal_error":
            allowed = [value for value in get_args(field.annotation) if isinstance(value, str)] if field else []
            if allowed:
                return f"{dotted}: {unknown('value', given, allowed)}"
            return f"{dotted}: got {shown(given)} (allowed: {context['expected']})"
    if loc and loc[-1] == "[key]":
        return _at(keys[:-2], f"key {shown(given)} (allowed: {_allowed(first['type'], context, None)})")
    return _at(keys, f"got {shown(given)} (allowed: {_allowed(first['type'], context, field)})")


def _at(keys: Sequence[str], message: str) -> str:
    return f"{'.'.join(keys)}: {message}" if keys else message


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "string": "text, in quotes",
    "bool": "true or false",
    "tuple": "a list",
    "none": "null",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _allowed(kind: str, context: Mapping[str, Any], field: FieldInfo | None) -> str:
    """What a field takes, by the kind of the error and the field's declaration."""
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    if kind in {"too_long", "string_too_long"}:
        return f"at most {context['max_length']} {'entries' if kind == 'too_long' else 'characters'}"
    if kind in {"too_short", "string_too_short"}:
        return f"at least {context['min_length']} {'entry' if kind == 'too_short' else 'character'}"
    if kind.startswith(("greater", "less")):
        kind = "int" if field and int in (field.annotation, *get_args(field.annotation)) else "float"
    words = _KINDS.get(kind.partition("_")[0], "a group of settings")
    bounds = [
        f"{words} {getattr(bound, name)}"
        for bound in (field.metadata if field else ())
        for name, words in _BOUNDS.items()
        if hasattr(bound, name)
    ]
    return ", ".join([words, *([" and ".join(bounds)] if bounds else [])])


def _place(
    model: type[BaseModel], loc: Sequence[int | str]
) -> tuple[list[str], list[type[BaseModel]], FieldInfo | None]:
    """The keys on the way to `loc` as its author wrote them, the declarations that may stand there, and their field.

    Pydantic's path also names the member of a union that it chose, which nobody wrote.
    """
    keys: list[str] = []
    at = [model]
    field: FieldInfo | None = None
    inside = tagged = False
    for part in loc:
        if tagged:
            at, tagged = [one for one in at if _tag(one) == part], False
            continue
        keys.append(str(part) if str(part).isprintable() else repr(part))
        if inside:
            inside = False  # a key of a mapping or an index of a list
            continue
        field = next((one.model_fields[str(part)] for one in at if part in one.model_fields), None)
        at = _declarations(field.annotation) if field else []
        inside = field is not None and get_origin(field.annotation) in {Mapping, tuple}
        tagged = field is not None and field.discriminator is not None
    return keys, at, field


def _declarations(annotation: Any) -> list[type[BaseModel]]:
    """The declarations in an annotation: all of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _declarations(part)]


def _tag(model: type[BaseModel]) -> str:
    """The name that tells one member of a union from the others, e.g. `squeezenet`."""
    return str(get_args(model.model_fields["name"].annotation)[0])
