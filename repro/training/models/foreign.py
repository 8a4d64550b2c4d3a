"""Networks whose code is not the project's: torchvision's, and what a function of one's own returns."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from repro.errors import InputError, shown, unknown
from repro.networks import PythonSpec, TorchvisionSpec, source_digest
from repro.training.torchvision_shim import import_torchvision


def of_torchvision(spec: TorchvisionSpec) -> nn.Module:
    """A network of torchvision with random weights and `classes` outputs.

    Raises:
        InputError: torchvision has no such network, or it does not take these arguments: one line.
    """
    models = importlib.import_module(f"{import_torchvision().__name__}.models")
    known = models.list_models(module=models)
    if spec.architecture not in known:
        raise InputError(f"model.architecture: {unknown('network of torchvision', spec.architecture, known)}")
    return _called(
        lambda **given: models.get_model(spec.architecture, weights=None, **given),
        f"model.architecture: {spec.architecture}",
        {**spec.args, "num_classes": spec.classes},
    )


def of_function(spec: PythonSpec) -> nn.Module:
    """What the function returns for `args`, and for `classes` and `input_size` where it takes them.

    Raises:
        InputError: the module cannot be imported or was edited since the run was planned, there is no such function in it,
            it does not take these arguments, fails, or returns no module: one line.
    """
    if source_digest(spec.function) != spec.source:
        raise InputError(
            f"model.function: the source of {spec.function} is not the one that this run was planned with; plan it anew"
        )
    where, (module, _, name) = f"model.function: {spec.function}", spec.function.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module that parses arguments as it is imported ends with SystemExit
        raise InputError(f"{where}: {module} cannot be imported ({_words(error)})") from None
    function = getattr(found, name, None)
    if not callable(function):
        functions = [one for one, value in vars(found).items() if callable(value) and not one.startswith("_")]
        raise InputError(f"model.function: {unknown(f'function of {module}', name, functions)}")
    takes = inspect.signature(function).parameters
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values())
    ours = {"classes": spec.classes, "input_size": spec.input_size}
    given = {name: value for name, value in ours.items() if anything or name in takes} | dict(spec.args)
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise InputError(
            f"{where}: is called with {', '.join(given) or 'nothing'}: {error} (it takes {', '.join(takes) or 'nothing'})"
        ) from None
    return _called(function, where, given)


def _called(function: Callable[..., Any], where: str, given: Mapping[str, Any]) -> nn.Module:
    arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    try:
        network = function(**arguments)
    except (Exception, SystemExit) as error:
        raise InputError(f"{where}: {_words(error)}") from None
    if not isinstance(network, nn.Module):
        raise InputError(f"{where}: returned {shown(network)} (allowed: a torch.nn.Module)")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"{where}: the network has no parameter to train")
    return network


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
