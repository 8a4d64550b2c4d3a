"""Networks whose code is not the project's: torchvision's, and what a function of one's own returns."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from repro.errors import InputError, shown, unknown
from repro.networks import PythonSpec, TorchvisionSpec, source_digest
from repro.training.optim import fits
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
        spec.input_size,
    )


def of_function(spec: PythonSpec) -> nn.Module:
    """What the function returns for `args`, and for `classes` and `input_size` where it takes them.

    Raises:
        InputError: the module cannot be imported or was edited since the run was planned, there is no such function in it,
            it does not take these arguments, fails, or returns no module: one line.
    """
    if source_digest(spec.function) != spec.source:
        raise InputError(
            f"model.function: the source of {spec.function} has changed since this run was planned; rerun the command,"
            " or, to have this very run again, unpack its source.zip into a folder and set PYTHONPATH to it"
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
    return _called(function, where, given, spec.input_size)


def _called(function: Callable[..., Any], where: str, given: Mapping[str, Any], side: int) -> nn.Module:
    arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    try:
        network = function(**arguments)
    except (Exception, SystemExit) as error:
        raise InputError(f"{where}: {_words(error)}") from None
    if not isinstance(network, nn.Module):
        raise InputError(f"{where}: returned {shown(network)} (allowed: a torch.nn.Module)")
    _lay_out(network, side, where)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"{where}: the network has no parameter to train")
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and not fits(parameter):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise InputError(
                f"{where}: the parameter {name} is {kind} with strides {parameter.stride()} (allowed: float32, contiguous)"
            )
    if names := [name for name, value in network.state_dict().items() if not isinstance(value, Tensor)]:
        raise InputError(
            f"{where}: its state dict contains {names[0]}, which is not a tensor (allowed: parameters and buffers)"
        )
    return network


def _lay_out(network: nn.Module, side: int, where: str) -> None:
    """Channels last; contiguous where the network takes views that need that. Lazy layers get their parameters here."""
    image = torch.zeros(1, 3, side, side)
    network.eval()
    with torch.no_grad():
        if any(isinstance(parameter, UninitializedParameter) for parameter in network.parameters()):
            try:
                network(image)
            except Exception as error:
                raise InputError(f"{where}: on an image of {side}x{side}: {_words(error)}") from None
        for parameter in network.parameters():
            if parameter.dim() == 4:  # `Module.to` would refuse filters of other dimensions
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
        try:
            network(image.contiguous(memory_format=torch.channels_last))
        except Exception as error:  # what else is wrong with it shows when it is tried
            if "view size is not compatible" in str(error):
                for parameter in network.parameters():
                    parameter.data = parameter.data.contiguous()
                network.register_forward_pre_hook(_contiguous)
    network.train()


def _contiguous(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(one.contiguous() for one in given)


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
