"""Networks of torchvision and of one's own: built, counted, described, trained, exported; and what is refused."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from repro.errors import InputError
from repro.networks import MODELS, PythonSpec, TorchvisionSpec, source_digest
from repro.spec import flatten, merged, resolve
from repro.training import data, export, generators, models, trial
from repro.training.batches import Batches
from repro.training.loop import Training
from repro.training.prepare import prepare

MODULE = """
import random
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

def small(classes, width=4, kernels=(3,)):
    return nn.Sequential(
        nn.Conv2d(3, width, kernels[0], stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    )

class Loose(nn.Module):  # not a chain; its weights are no layer's
    def __init__(self, classes, input_size):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3 * input_size * input_size, classes) / 100)

    def forward(self, images):
        return images.flatten(1) @ self.weights

def anything(**given): return small(given["classes"], width=given["input_size"])
def nothing(): return None
def frozen(classes): return small(classes).requires_grad_(False)
def broken(classes): raise RuntimeError("no network\\ntoday")
def maps(classes): return nn.Conv2d(3, classes, 3)
def pairs(classes):
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small(classes)
        def forward(self, images): return self.inner(images), None
    return Pairs()
def detached(classes):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small(classes)
        def forward(self, images): return self.inner(images).detach()
    return Detached()
number = 3

class Body(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Linear(256, classes)

    def forward(self, images): return self.linear(F.gelu(self.norm(self.conv(images))).flatten(1))

class Views(Body):  # of contiguous tensors alone
    def forward(self, images): return self.linear(F.gelu(self.norm(self.conv(images))).view(len(images), -1))

class Indexed(Body):  # a frozen parameter of another type
    def __init__(self, classes):
        super().__init__(classes)
        self.order = nn.Parameter(torch.arange(256).flip(0), requires_grad=False)
    def forward(self, images): return self.linear(self.conv(images).flatten(1)[:, self.order])

class Constrained(Body):  # weights of a bounded norm
    def forward(self, images):
        self.linear.weight.data = torch.renorm(self.linear.weight.data, 2, 0, 0.1)
        return super().forward(images)

class Halved(Body):  # the norm takes part in every second step only
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64), persistent=False)
    def forward(self, images):
        self.steps += self.training
        conv = self.conv(images)
        return self.linear((self.norm(conv) if self.steps % 2 else conv).flatten(1))

class Random(Body):
    def forward(self, images):
        output = super().forward(images)
        if self.training and random.random() < 0.5:
            output = output * 2 + torch.from_numpy(np.random.rand(*output.shape)).to(output.dtype)
        return output

class Twice(Body):  # one weight under two names
    def __init__(self, classes):
        super().__init__(classes)
        self.conv2, self.conv3 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.conv3.weight = self.conv2.weight
    def forward(self, images): return self.linear(self.conv3(self.conv2(self.conv(images))).flatten(1))

class Volumes(Body):
    def __init__(self, classes):
        super().__init__(classes)
        self.conv, self.norm = nn.Conv3d(1, 4, 3, stride=4, padding=1), nn.LayerNorm((4, 1, 8, 8))
    def forward(self, images): return super().forward(images.unsqueeze(1))

class Lazy(nn.Sequential):
    def __init__(self, classes): super().__init__(nn.LazyConv2d(4, 3, stride=4), nn.Flatten(), nn.LazyLinear(classes))

def gaps(classes): return with_weight(classes, torch.randn(256, 64)[:, :classes])
def double(classes): return with_weight(classes, torch.randn(256, classes).double())
def with_weight(classes, weight):
    body = Body(classes)
    body.weight = nn.Parameter(weight)
    return body

class Stateful(Body):
    def get_extra_state(self): return {"steps": 3}
    def set_extra_state(self, state): pass

class Scattered(Body):  # its gradient is sparse
    def __init__(self, classes):
        super().__init__(classes)
        self.table = nn.Embedding(2, classes, sparse=True)
    def forward(self, images): return super().forward(images) + self.table(torch.tensor(0))
"""

DIGITS = {"model.name": "squeezenet", "data.dataset": "digits"}


@pytest.fixture
def my_nets(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path / "my_nets.py"
    sys.modules.pop("my_nets", None)


@pytest.fixture(scope="module")
def loaded(digits):
    found = data.load(prepare("digits", digits), resolve(DIGITS, "test").data)
    return replace(found, train=found.train[:160], val=found.val[:50], test=found.test[:50])


def python(function: str, **args):
    return resolve({"model.name": "python", "model.function": function, "model.args": args}, "test")


def torchvision(architecture: str, **dotted):
    return resolve({"model.name": "torchvision", "model.architecture": architecture, **dotted}, "test")


def test_every_declaration_has_a_builder():
    assert tuple(models.BUILDERS) == MODELS


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("resnet18", 11_181_642),
        ("efficientnet_b0", 4_020_358),
        ("mobilenet_v3_small", 1_528_106),
        ("squeezenet1_1", 727_626),
        ("alexnet", 57_044_810),
    ],
)
def test_networks_of_torchvision_have_a_head_for_the_classes(architecture, parameters):
    size = 64 if architecture == "alexnet" else 32
    spec = TorchvisionSpec(name="torchvision", architecture=architecture, input_size=size)
    network = models.build(spec)
    described = models.describe(network, spec)
    assert described.parameters == parameters
    assert described.model == f"torchvision {architecture}"
    known = [layer.multiply_adds for layer in described.layers if layer.kind in {"conv", "linear"}]
    assert described.multiply_adds == sum(known) > 0
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_arguments_reach_the_network_of_torchvision():
    spec = torchvision("mobilenet_v3_small", **{"model.args.dropout": 0.75})
    assert [part.p for part in models.build(spec.model).modules() if isinstance(part, nn.Dropout)] == [0.75]


def test_a_function_gets_its_arguments_and_what_it_takes_of_the_data(my_nets):
    network = models.build(python("my_nets:small", width=6, kernels=[5]).model)
    assert (network[0].out_channels, network[0].kernel_size, network[4].out_features) == (6, (5, 5), 10)
    assert models.build(python("my_nets:anything").model)[0].out_channels == 32
    spec = python("my_nets:Loose").model
    described = models.describe(models.build(spec), spec)
    assert (described.parameters, described.multiply_adds) == (30_720, 30_720)
    assert described.model == "python my_nets:Loose"


def test_attention_is_counted_by_its_parts():
    spec = TorchvisionSpec(name="torchvision", architecture="resnet18")
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, images):
            return self.layer(images.flatten(1)[:, :64].view(-1, 8, 8))

    products = 8 * 8 * 24 + 2 * (8 * 8 * 4) * 2 + 8 * 8 * 8 + 2 * 8 * 8 * 16
    assert models.describe(Attends().eval(), spec).multiply_adds == products


def test_the_key_is_of_the_source_and_an_edited_module_is_another_question(my_nets):
    before = python("my_nets:small", width=6)
    assert re.fullmatch("[0-9a-f]{64}", before.model.source)
    assert flatten(before)["model.args.width"] == 6
    assert before.key == python("my_nets:small", width=6).key != python("my_nets:small", width=7).key
    assert hash(before) == hash(python("my_nets:small", width=6))
    my_nets.write_text(MODULE + "\n# edited\n")
    assert python("my_nets:small", width=6).key != before.key
    with pytest.raises(InputError, match="the source of my_nets:small has changed since this run was planned"):
        models.build(before.model)


def test_a_package_counts_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inner = tmp_path / "nets" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").write_text("raise RuntimeError('nothing is imported for a digest')\n")
    one = source_digest("nets.inner:small")
    (inner.parent / "layers.py").write_text("width = 3\n")
    other = source_digest("nets.inner:small")
    (inner.parent / "layers.py").rename(inner / "layers.py")
    assert len({one, other, source_digest("nets:small")}) == 3


def test_the_working_folder_comes_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("")
    assert source_digest("json:loads") != source_digest("torch:zeros")
    (tmp_path / "json.py").write_text("changed = True")
    before = source_digest("json:loads")
    (tmp_path / "json.py").unlink()
    assert source_digest("json:loads") == before


def test_another_function_or_architecture_drops_the_arguments_of_the_former():
    before = {"model.function": "a:b", "model.args.width": 3}
    assert merged(before, {"model.function": "a:c"}) == {"model.function": "a:c"}
    assert merged(before, {"model.args": {"depth": 2}}) == before | {"model.args.depth": 2}


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        ("my_nets:smal", {}, "unknown function of my_nets 'smal'; did you mean 'small'?"),
        ("my_nets:number", {}, "unknown function of my_nets 'number'"),
        (
            "my_nets:small",
            {"widht": 3},
            "got an unexpected keyword argument 'widht' (it takes classes, width, kernels)",
        ),
        ("my_nets:Loose", {"classes": 3}, "returned the shape (2, 3) (allowed: (2, 10), one logit per class)"),
        ("my_nets:nothing", {}, "returned None (allowed: a torch.nn.Module)"),
        ("my_nets:frozen", {}, "the network has no parameter to train"),
        ("my_nets:broken", {}, "my_nets:broken: RuntimeError: no network today"),
        ("my_nets:small", {"width": "wide"}, "my_nets:small: TypeError"),
        ("my_nets:small", {"kernels": [40]}, "images of 32x32 in fp32: RuntimeError"),
        ("my_nets:maps", {}, "returned the shape (2, 10, 30, 30) (allowed: (2, 10), one logit per class)"),
        ("my_nets:pairs", {}, "returned tuple (allowed: a tensor of logits)"),
        ("my_nets:detached", {}, "has no gradient"),
        ("my_nets:gaps", {}, "the parameter weight is float32 with strides (64, 1) (allowed: float32, contiguous)"),
        ("my_nets:double", {}, "the parameter weight is float64 with strides (10, 1) (allowed: float32, contiguous)"),
        (
            "my_nets:Stateful",
            {},
            "its state dict contains _extra_state, which is not a tensor (allowed: parameters and buffers)",
        ),
        ("my_nets:Scattered", {}, "images of 32x32 in fp32: RuntimeError"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(my_nets, monkeypatch, capsys, function, args, said):
    specs = [python(function, **args).model_dump(mode="json")]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(specs)))
    assert trial.main() == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_module_that_cannot_be_imported_is_one_line(my_nets):
    my_nets.write_text("import nothing_of_that_name\n")
    with pytest.raises(InputError, match=r"cannot be imported \(ModuleNotFoundError: No module named 'nothing_of"):
        trial.trial(python("my_nets:small"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model.function": "my_net:small"}, "there is no module 'my_net'; did you mean 'my_nets'?"),
        ({"model.function": "sys:exit"}, "no module 'sys'"),
        ({"model.function": "my_nets.small"}, "model.function: got 'my_nets.small' (allowed: module:function, for"),
        ({}, "model.function: is required"),
        ({"model.function": "my_nets:small", "model.args": 8}, "model.args: got 8"),
        ({"model.function": "my_nets:small", "model.args.width": {"a": 1}}, "use dotted names"),
        (
            {"model.function": "my_nets:small", "model.args.kernels": [[1]]},
            "model.args.kernels: got [[1]] (allowed: numbers,",
        ),
        ({"model.function": "my_nets:small", "model.args.width": float("nan")}, "model.args.width: got nan"),
        (
            {"model.function": "my_nets:small", "model.args": {"a-b": 1}},
            "model.args: 'a-b' is not the name of an argument",
        ),
        ({"model.function": "my_nets:small", "model.depth": 1}, "model: unknown key 'depth'"),
    ],
)
def test_settings_that_name_no_network_are_one_line(my_nets, settings, said):
    with pytest.raises(InputError, match=re.escape(said)):
        resolve({"model.name": "python", **settings}, "test")


@pytest.mark.parametrize(
    ("architecture", "dotted", "said"),
    [
        ("resnet19", {}, "unknown network of torchvision 'resnet19'; did you mean 'resnet18'?"),
        ("resnet18", {"model.args.width": 3}, "resnet18: TypeError"),
        ("alexnet", {}, "torchvision alexnet on 2 images of 32x32 in fp32: RuntimeError"),
        ("resnet18", {"training.batch_size": 1}, "ValueError: Expected more than 1 value per channel when training"),
    ],
)
def test_a_network_of_torchvision_that_does_not_fit_is_one_line(architecture, dotted, said):
    with pytest.raises(InputError) as caught:
        trial.trial(torchvision(architecture, **dotted))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_trained_by_autograd_resumed_and_exported(my_nets, loaded, precision):
    settings = {
        "model.name": "python",
        "model.function": "my_nets:small",
        "training.epochs": 2,
        "data.dataset": "digits",
    }
    spec = resolve(settings | {"training.precision": precision}, "test")
    trial.trial(spec)
    *_, whole = Training(spec, loaded)
    first = Training(spec, loaded)
    events = iter(first)
    for _ in range(3):
        next(events)
    assert (first.way.step, first.way.reason) == (
        "autograd",
        "0: Conv2d(3, 4, kernel_size=(3, 3), stride=(4, 4)) is not covered",
    )
    buffer = io.BytesIO()
    torch.save(first.snapshot(), buffer)
    buffer.seek(0)
    second = Training(spec, loaded, resume=torch.load(buffer, weights_only=True))
    *_, resumed = second
    assert resumed.weights_digest == whole.weights_digest
    state = second.best_state()
    program = torch.export.load(io.BytesIO(export.exported(spec, state, loaded)))
    images = loaded.images[loaded.test[:30]]
    expected = second.predictions["test_predicted"][:30]
    assert program.module()(images).argmax(1).tolist() == expected.tolist()


HABITS = ["Views", "Indexed", "Constrained", "Halved", "Random", "Twice", "Volumes", "Lazy"]


@pytest.mark.parametrize("name", HABITS)
def test_networks_of_every_habit_are_trained_as_by_torch_and_resume(my_nets, loaded, name):
    settings = {"model.name": "python", "model.function": f"my_nets:{name}", "data.dataset": "digits"}
    settings |= {"optimizer.name": "sgd", "optimizer.momentum": 0.5, "training.epochs": 2, "training.patience": 2}
    spec = resolve(settings, "test")
    trial.trial(spec)
    training = Training(spec, loaded)
    for number, _ in enumerate(training):
        if number == 5:  # in the second epoch
            break
    buffer = io.BytesIO()
    torch.save(training.snapshot(), buffer)
    ours = {name: one.clone() for name, one in training.module.named_parameters()}
    *_, whole = training
    buffer.seek(0)
    *_, resumed = Training(spec, loaded, resume=torch.load(buffer, weights_only=True))
    assert resumed.weights_digest == whole.weights_digest
    assert models.build(spec.model).load_state_dict(training.best_state())

    generators.seed(spec.seed)
    network = models.build(spec.model).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.5)
    source = Batches(spec, loaded, torch.device("cpu"), torch.float32)
    for indices in (*source.of_epoch(1), *source.of_epoch(2)[:1]):
        images, labels = source.load(indices)
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    for name, one in network.named_parameters():
        assert torch.allclose(one, ours[name], rtol=1e-3, atol=1e-5), name


def test_a_shared_weight_is_saved_in_float32_under_both_names(my_nets, loaded):
    settings = {"model.name": "python", "model.function": "my_nets:Twice", "data.dataset": "digits"}
    spec = resolve(settings | {"training.epochs": 1, "training.precision": "bf16"}, "test")
    training = Training(spec, loaded)
    for _ in training:
        pass
    state = training.best_state()
    assert state["conv3.weight"].dtype is torch.float32
    assert torch.equal(state["conv2.weight"], state["conv3.weight"])


def test_bfloat16_says_which_layers_take_it(my_nets):
    settings = {"model.name": "python", "model.function": "my_nets:Loose", "training.precision": "bf16"}
    with pytest.raises(InputError, match="in bf16 only Conv2d and Linear take bfloat16"):
        trial.trial(resolve(settings, "test"))


def test_a_specs_usual_network_is_itself_without_arguments():
    spec = PythonSpec(name="python", function="a:b", args={"width": 3}, classes=5, source="0" * 64)
    assert spec.usual() == PythonSpec(name="python", function="a:b", source="0" * 64)
