"""The laws of a run's identity: what changes its key, what does not, and how a bad setting is said."""

from __future__ import annotations

import math
import re
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from repro import spec as spec_module
from repro.datasets import DATASETS, DataSpec
from repro.errors import InputError
from repro.networks import MODELS, AlexNetSpec, PythonSpec, SqueezeNetSpec, TorchvisionSpec
from repro.recipe import AdaBoundSpec, AdamSpec, AdamWSpec, SGDSpec, TrainingSpec
from repro.spec import (
    RunSpec,
    flatten,
    merged,
    nest,
    resolve,
)

SQUEEZENET_BN = {"model.name": "squeezenet", "model.batch_norm": "all"}
ALEXNET = {"model.name": "alexnet"}

DOES_NOT_COUNT: dict[str, str] = {}
"""Dotted field -> why its value stays out of the key. Every field counts today: what does not count is in no field."""

TOGETHER = {  # fields that are legal beside others only
    "data.folds": {"data.folds": 5, "data.fold": 0},
    "data.fold": {"data.folds": 5, "data.fold": 0},
    "data.image_size": {"data.dataset": "imagefolder:photos", "data.digest": "0" * 64, "data.split_digest": "0" * 64},
}

ONLY_VALUE = {  # fields that later work needs, with the one value that is legal today
    "optimizer.amsbound",
    "semantics",
}

OTHER_VALUE = {  # another legal value, where it does not follow from the default
    "model.squeeze_kernel": 3,
    "model.expand_kernels": [3, 5],
    "model.pools": ["fire2"],
    "model.replicated": ["fire3"],
    "model.removed": ["fire4"],
    "model.residual": "simple",
    "model.batch_norm": "none",
    "model.architecture": "alexnet",
    "model.function": "json:dumps",
    "model.source": "0" * 64,
    "model.input_size": 64,  # no data set of that size is declared yet: see `other_spec`
    "data.dataset": "digits",
    "data.image_size": 64,
    "data.normalisation": "none",
    "data.augmentation": "flip",
    "data.digest": "0" * 64,
    "data.split_digest": "0" * 64,
    "training.precision": "bf16",
    "optimizer.schedule": "cosine",
    "optimizer.step_epochs": [7],
}

BASES = {
    SqueezeNetSpec: SQUEEZENET_BN,
    AlexNetSpec: {**ALEXNET, "model.batch_norm": "all"},
    TorchvisionSpec: {"model.name": "torchvision", "model.architecture": "resnet18", "model.args.width": 4},
    PythonSpec: {"model.name": "python", "model.function": "json:loads", "model.args.width": 4},
    DataSpec: SQUEEZENET_BN,
    TrainingSpec: SQUEEZENET_BN,
    AdaBoundSpec: {**SQUEEZENET_BN, "optimizer.name": "adabound"},
    AdamSpec: {**SQUEEZENET_BN, "optimizer.name": "adam"},
    AdamWSpec: {**SQUEEZENET_BN, "optimizer.name": "adamw"},
    SGDSpec: {**SQUEEZENET_BN, "optimizer.name": "sgd"},
}
GROUPS = dict.fromkeys(MODELS, "model") | {DataSpec: "data", TrainingSpec: "training"}


FIELDS = [  # every field of every declaration, with settings of a run that has it
    (f"{GROUPS.get(declaration, 'optimizer')}.{name.replace('args', 'args.width')}", base)
    for declaration, base in BASES.items()
    for name in declaration.model_fields
    if name != "name"
] + [("seed", SQUEEZENET_BN), ("semantics", SQUEEZENET_BN)]


def run(*changes, **dotted) -> RunSpec:
    settings = dict(SQUEEZENET_BN)
    for change in changes:
        settings |= change
    return resolve(settings | dotted, "test")


def other_value(field: str, value):
    if field in OTHER_VALUE:
        return OTHER_VALUE[field]
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 or 0.25
    raise AssertionError(f"{field}: name another legal value in OTHER_VALUE, or list it")


def other_spec(field: str, base) -> RunSpec:
    wanted = {**base, field: other_value(field, flatten(resolve(base, "test"))[field])}
    if field == "optimizer.step_epochs":  # only one schedule has such
        wanted["optimizer.schedule"] = "steps"
    if field in {"model.input_size", "data.image_size"}:  # legal where both are set
        group, _, name = field.partition(".")
        spec = resolve(base, "test")
        part = getattr(spec, group).model_copy(update={name: OTHER_VALUE[field]})
        return spec.model_copy(update={group: part})
    return resolve(wanted, "test")


@pytest.mark.parametrize(("field", "base"), FIELDS)
def test_each_field_changes_the_key_or_is_listed(field, base):
    base = base | TOGETHER.get(field, {})
    before = resolve(base, "test")
    if field in ONLY_VALUE:
        for other in (True, 2, "other", None, 0.5):
            if other != flatten(before)[field]:
                with pytest.raises(InputError, match=re.escape(field)):
                    resolve({**base, field: other}, "test")
        return
    after = other_spec(field, base)
    assert flatten(after)[field] != flatten(before)[field]
    assert (after.key == before.key) == (field in DOES_NOT_COUNT)


def test_the_walk_over_the_fields_meets_each_of_them():
    every = {"seed", "semantics", "model.name", "optimizer.name"}
    for base in BASES.values():
        every |= set(flatten(resolve(base, "test")))
    assert every == {field for field, _ in FIELDS} | {"model.name", "optimizer.name"}
    assert set(RunSpec.model_fields) == {"model", "data", "optimizer", "training", "seed", "semantics"}
    assert set(DOES_NOT_COUNT) | ONLY_VALUE | set(OTHER_VALUE) <= every


def test_another_model_or_optimizer_has_another_key():
    keys = {resolve(base, "test").key for base in BASES.values()}
    assert len(keys) == 7  # SqueezeNet with AdaBound stands four times


def test_keys_are_what_they_were_when_these_runs_were_trained():
    # Whoever changes these lines says that every run there is answers another question.
    assert all(len(set(known.digest)) > 8 and len(set(known.split_digest)) > 8 for known in DATASETS.values())
    assert resolve(SQUEEZENET_BN, "test").key == "5d69730c501e6f81"
    assert resolve(ALEXNET, "test").key == "1f154f440452314d"


def test_a_key_is_16_hexadecimal_digits():
    assert re.fullmatch("[0-9a-f]{16}", run().key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"model.name": "squeezenet", "model.batch_norm": "all"},
            {"model.batch_norm": "all", "model.name": "squeezenet"},
        ),
        ({"optimizer.lr": 1}, {"optimizer.lr": 1.0}),
        ({"model.dropout": 0}, {"model.dropout": -0.0}),
        ({"optimizer.weight_decay": 0.0}, {"optimizer.weight_decay": -0.0}),
        ({}, {"optimizer.name": "adabound", "optimizer.final_lr": 0.04, "training.epochs": 100, "seed": 0}),
        ({}, {"data.dataset": "cifar10"}),
        ({}, {"data.digest": DATASETS["cifar10"].digest}),
        ({"model.pools": ["conv1", "fire4"]}, {"model.pools": ["fire4", "conv1", "fire4"]}),
        ({"model.pools": ["fire2", "fire10"]}, {"model.pools": ["fire10", "fire2"]}),
        ({"model.removed": ["fire3", "fire5"]}, {"model.removed": ("fire5", "fire3", "fire3")}),
        ({"model.replicated": ["fire3", "fire3", "fire5"]}, {"model.replicated": ["fire3", "fire5", "fire3"]}),
    ],
)
def test_one_question_in_other_words_is_one_spec_with_one_key(one, other):
    assert run(one) == run(other)
    assert run(one).key == run(other).key
    assert flatten(run(one)) == flatten(run(other))


def test_a_second_replica_is_another_question():
    twice = run({"model.replicated": ["fire3", "fire3"]})
    assert flatten(twice)["model.replicated"] == ["fire3", "fire3"]
    assert twice.key != run({"model.replicated": ["fire3"]}).key


@given(st.permutations(sorted(flatten(run()).items())))
def test_the_key_does_not_depend_on_the_order_of_settings(items):
    assert resolve(dict(items), "test").key == run().key


LEGAL = st.fixed_dictionaries(
    {"model.name": st.just("squeezenet")},
    optional={
        "model.fire_modules": st.integers(4, 64),
        "model.squeeze_ratio": st.floats(0, 1, exclude_min=True),
        "model.expand_3x3": st.floats(0, 1),
        "model.expand_kernels": st.lists(st.sampled_from([1, 3, 5, 7]), min_size=2, max_size=2),
        "model.pools": st.lists(st.sampled_from(["conv1", "fire2", "fire4", "fire10", "fire65"])),
        "model.replicated": st.lists(st.sampled_from(["fire2", "fire3"])),
        "model.removed": st.lists(st.sampled_from(["fire4", "fire5"])),
        "model.residual": st.sampled_from(["none", "simple", "complex"]),
        "model.conv_bias": st.booleans(),
        "data.dataset": st.sampled_from(["cifar10", "digits"]),
        "optimizer.lr": st.floats(0, 100, exclude_min=True),
        "optimizer.name": st.sampled_from(["adabound", "adam", "sgd"]),
        "training.batch_size": st.integers(1, 1437),
        "seed": st.integers(0, 2**31 - 1),
    },
)


@given(LEGAL)
def test_a_spec_survives_flatten_nest_and_json_with_its_key(settings):
    one = resolve(settings, "test")
    assert RunSpec.model_validate(nest(flatten(one))) == one
    assert resolve(flatten(one), "test").key == one.key
    assert RunSpec.model_validate(one.model_dump(mode="json")).key == one.key
    assert RunSpec.model_validate_json(one.model_dump_json()).key == one.key
    assert hash(RunSpec.model_validate(nest(flatten(one)))) == hash(one)


@given(LEGAL, LEGAL)
def test_keys_are_equal_exactly_where_specs_are(one, other):
    first, second = resolve(one, "test"), resolve(other, "test")
    assert (first.key == second.key) == (first == second) == (flatten(first) == flatten(second))


@given(
    st.recursive(
        st.integers() | st.text(),
        lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, min_size=1, max_size=3),
    ).filter(lambda tree: isinstance(tree, dict))
)
def test_nest_undoes_dots(tree):
    def dotted(node, prefix=""):
        for name, value in node.items():
            if isinstance(value, dict):
                yield from dotted(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    assert nest(dict(dotted(tree))) == tree


def test_nest_leaves_what_it_was_given_alone():
    given_settings = {"model.name": "alexnet", "model.dropout": 0.1}
    nest(given_settings)["model"]["name"] = "changed"
    assert given_settings == {"model.name": "alexnet", "model.dropout": 0.1}


@pytest.mark.parametrize("field", ["seed", "key", "model"])
def test_a_spec_is_frozen(field):
    with pytest.raises((ValidationError, AttributeError)):
        setattr(run(), field, 1)
    with pytest.raises(ValidationError):
        run().model.fire_modules = 3


def test_a_key_that_was_read_is_not_kept():
    read = run()
    assert read.key != read.model_copy(update={"seed": 1}).key == run({"seed": 1}).key
    assert read == run()


class TestAddedLater:
    """A field that is added after the first release does not change the keys of the runs there are."""

    @pytest.fixture
    def later(self, monkeypatch):
        """A model with a field more, which at 1.5 is what the model did before it had the field."""

        class Grown(SqueezeNetSpec):
            stretch: float = 1.5
            switches: tuple[str, ...] = ()

        class GrownRun(RunSpec):
            model: Grown | AlexNetSpec = Field(discriminator="name")

        monkeypatch.setattr(spec_module, "ADDED_LATER", MappingProxyType({"model.stretch": 1.5, "model.switches": []}))

        def grown(**given_fields):
            return GrownRun(model=Grown(name="squeezenet", batch_norm="all", **given_fields))

        return grown

    def test_at_its_neutral_value_the_key_stays(self, later):
        assert "model.stretch" in flatten(later())
        assert later().key == run().key

    @pytest.mark.parametrize("given_fields", [{"stretch": 1.0}, {"switches": ("a",)}])
    def test_at_another_value_it_is_another_question(self, later, given_fields):
        assert later(**given_fields).key != run().key

    def test_without_the_list_the_key_would_change(self, later, monkeypatch):
        monkeypatch.setattr(spec_module, "ADDED_LATER", MappingProxyType({}))
        assert later().key != run().key

    def test_what_is_listed_is_a_field_with_that_default(self):
        known = {name for base in BASES.values() for name in flatten(resolve(base, "test"))}
        assert set(spec_module.ADDED_LATER) <= known


class TestMerged:
    def test_changes_win(self):
        assert merged({"model.name": "squeezenet", "seed": 1}, {"seed": 2}) == {"model.name": "squeezenet", "seed": 2}

    def test_another_model_drops_the_former_ones_settings(self):
        before = {"model.name": "squeezenet", "model.pools": [], "optimizer.lr": 0.1}
        assert merged(before, {"model.name": "alexnet"}) == {"model.name": "alexnet", "optimizer.lr": 0.1}

    def test_the_same_model_keeps_them(self):
        before = {"model.name": "squeezenet", "model.pools": []}
        assert merged(before, {"model.name": "squeezenet"}) == before

    def test_an_optimizer_that_was_not_named_is_adabound(self):
        assert merged({"optimizer.final_lr": 0.1}, {"optimizer.name": "adabound"})["optimizer.final_lr"] == 0.1
        assert "optimizer.final_lr" not in merged({"optimizer.final_lr": 0.1}, {"optimizer.name": "sgd"})


BAD = [  # settings, what the line says
    ({"modle.dropout": 0.1}, "unknown key 'modle'; did you mean 'model'? (allowed: data, model, optimizer, seed, sem"),
    ({"": 1}, "unknown key '' (allowed: data, model"),
    ({"sed": 1}, "unknown key 'sed'; did you mean 'seed'?"),
    (
        {"model.squeze_ratio": 0.5},
        "model: unknown key 'squeze_ratio'; did you mean 'squeeze_ratio'? (allowed: base_e, b",
    ),
    (
        {"data.dataste": "digits"},
        "data: unknown key 'dataste'; did you mean 'dataset'? (allowed: augmentation, dataset,",
    ),
    ({"optimizer.final_lrr": 0.1}, "optimizer: unknown key 'final_lrr'; did you mean 'final_lr'? (allowed: amsbound,"),
    (
        {"optimizer.name": "sgd", "optimizer.momentun": 0.9},
        "optimizer: unknown key 'momentun'; did you mean 'momentum'?",
    ),
    (
        {"optimizer.name": "sgd", "optimizer.gamma": 0.9},
        "optimizer: unknown key 'gamma' (allowed: lr, momentum, name, ",
    ),
    (
        {"training.epoch": 3},
        "training: unknown key 'epoch'; did you mean 'epochs'? (allowed: batch_size, epochs, label_smoothing, patience,",
    ),
    ({"model.name": "alexnet"}, "model: unknown key 'pools'"),
    (
        {"model.name": "resnet"},
        "model.name: unknown value 'resnet'; did you mean 'alexnet'? (allowed: alexnet, python, squeezenet, torchvision)",
    ),
    ({"model.name": 5}, "model.name: unknown value 5 (allowed: alexnet, python, squeezenet, torchvision)"),
    (
        {"model.name": ["a", ["b"]]},
        "model.name: unknown value ['a', ['b']] (allowed: alexnet, python, squeezenet, torchvision)",
    ),
    (
        {"optimizer.name": "adabond"},
        "optimizer.name: unknown value 'adabond'; did you mean 'adabound'? (allowed: adabound,",
    ),
    (
        {"data.dataset": "cifar"},
        "data.dataset: unknown value 'cifar'; did you mean 'cifar10'? (allowed: cifar10, cifar100, digits, fashion_mnist,",
    ),
    ({"data.dataset": None}, "data.dataset: unknown value None (allowed: cifar10, cifar100, digits, fashion_mnist,"),
    ({"data.dataset": "imagefolder:"}, "data.dataset: unknown value 'imagefolder:'"),
    ({"data.dataset": "mnist"}, "data.digest: is not known; `repro data --dataset mnist` prepares the data set"),
    ({"data.image_size": 64}, "data.image_size: cifar10 has images of 32x32, got 64"),
    (
        {"data.folds": 5},
        "data.fold: is set by the plan for each fold; give the number of folds instead (--folds 5, or folds: 5)",
    ),
    ({"data.folds": 1, "data.fold": 0}, "data.folds: got 1 (allowed: a whole number, at least 2 and at most 1000)"),
    ({"data.folds": 5, "data.fold": 5}, "data.fold: 5 is not one of 5 folds (allowed: 0 to 4)"),
    (
        {"data.dataset": "digits", "data.folds": 157, "data.fold": 0},
        "data.folds: 157 folds need 157 images of every class; one of digits has 156 for training and validation",
    ),
    (
        {"model.residual": "simpel"},
        "model.residual: unknown value 'simpel'; did you mean 'simple'? (allowed: complex, none",
    ),
    ({"model.batch_norm": False}, "model.batch_norm: unknown value False (allowed: all, fire, none, outside)"),
    (
        {"training.precision": "fp16"},
        "training.precision: unknown value 'fp16'; did you mean 'bf16'? (allowed: bf16, fp32)",
    ),
    (
        {"data.augmentation": "flop"},
        "data.augmentation: unknown value 'flop'; did you mean 'flip'? (allowed: crop_flip,",
    ),
    ({"data.fold": 1}, "data.fold: is set by the plan for each fold"),
    ({"data.digest": "zz"}, "data.digest: got 'zz' (allowed: text that matches ^[0-9a-f]{64}$)"),
    ({"model.fire_modules": 0}, "model.fire_modules: got 0 (allowed: a whole number, at least 1 and at most 64)"),
    ({"model.fire_modules": 65}, "model.fire_modules: got 65 (allowed: a whole number, at least 1 and at most 64)"),
    ({"model.fire_modules": True}, "model.fire_modules: got True (allowed: a whole number, at least 1 and at most 64)"),
    ({"model.fire_modules": 8.0}, "model.fire_modules: got 8.0 (allowed: a whole number, at least 1 and at most 64)"),
    ({"model.fire_modules": "8"}, "model.fire_modules: got '8' (allowed: a whole number, at least 1 and at most 64)"),
    ({"model.fire_modules": None}, "model.fire_modules: got None (allowed: a whole number, at least 1 and at most 64)"),
    ({"model.fire_modules": [8]}, "model.fire_modules: got [8] (allowed: a whole number, at least 1 and at most 64)"),
    (
        {"model.fire_modules": {"x": 1}},
        "model.fire_modules': got {'x': 1}; use dotted names, for example model.first_kernel: 5",
    ),
    ({"model.squeeze_ratio": 0}, "model.squeeze_ratio: got 0 (allowed: a number, above 0 and at most 1)"),
    ({"model.squeeze_ratio": 1.01}, "model.squeeze_ratio: got 1.01 (allowed: a number, above 0 and at most 1)"),
    ({"model.squeeze_ratio": math.nan}, "model.squeeze_ratio: got nan (allowed: a number, above 0 and at most 1)"),
    ({"model.squeeze_ratio": math.inf}, "model.squeeze_ratio: got inf (allowed: a number, above 0 and at most 1)"),
    ({"model.squeeze_ratio": True}, "model.squeeze_ratio: got True (allowed: a number, above 0 and at most 1)"),
    ({"model.squeeze_ratio": "half"}, "model.squeeze_ratio: got 'half' (allowed: a number, above 0 and at most 1)"),
    ({"model.squeeze_ratio": "a\nb"}, "model.squeeze_ratio: got 'a\\nb' (allowed: a number, above 0 and at most 1)"),
    ({"model.squeeze_ratio": 10**400}, "model.squeeze_ratio: got 1000"),
    ({"model.squeeze_ratio": 1 << 20_000}, "model.squeeze_ratio: got a huge number (allowed: a number, above 0 and at"),
    ({"model.dropout": 1}, "model.dropout: got 1 (allowed: a number, at least 0 and below 1)"),
    ({"model.conv_bias": "yes"}, "model.conv_bias: got 'yes' (allowed: true or false)"),
    ({"model.conv_bias": 1}, "model.conv_bias: got 1 (allowed: true or false)"),
    ({"model.squeeze_kernel": 2}, "model.squeeze_kernel: got 2 (allowed: 1, 3, 5 or 7)"),
    ({"model.squeeze_kernel": True}, "model.squeeze_kernel: got True (allowed: a whole number)"),
    ({"model.expand_kernels": 3}, "model.expand_kernels: got 3 (allowed: a list)"),
    ({"model.expand_kernels": [1]}, "model.expand_kernels: got [1] (allowed: at least 2 entries)"),
    ({"model.expand_kernels": [1, 3, 5]}, "model.expand_kernels: got [1, 3, 5] (allowed: at most 2 entries)"),
    ({"model.expand_kernels": [1, 2]}, "model.expand_kernels.1: got 2 (allowed: 1, 3, 5 or 7)"),
    ({"model.expand_kernels": [True, 3]}, "model.expand_kernels.0: got True (allowed: a whole number)"),
    ({"model.pools": "conv1"}, "model.pools: got 'conv1' (allowed: a list)"),
    ({"model.pools": [["conv1"]]}, "model.pools.0: got ['conv1'] (allowed: text, in quotes)"),
    ({"model.pools": ["conv1", 4]}, "model.pools.1: got 4 (allowed: text, in quotes)"),
    (
        {"model.pools": ["fir4"]},
        "model.pools: unknown layer 'fir4'; did you mean 'fire4'? (allowed: conv1, fire2, fire3,",
    ),
    ({"model.pools": ["fire66"]}, "model.pools: unknown layer 'fire66'"),
    ({"model.pools": ["x\ny"]}, "model.pools: unknown layer 'x\\ny'"),
    ({"model.replicated": ["fire10"]}, "model.replicated: unknown layer 'fire10'"),
    ({"model.replicated": ["conv1"]}, "model.replicated: unknown layer 'conv1' (allowed: fire2, fire3"),
    ({"model.removed": ["fire1"]}, "model.removed: unknown layer 'fire1'"),
    ({"model.removed": [f"fire{i}" for i in range(2, 10)]}, "model.removed: at least one Fire module must remain"),
    (
        {"model.removed": ["fire3"], "model.replicated": ["fire3"]},
        "model.replicated: fire3 is removed, so it cannot be replicated",
    ),
    ({"model.classes": 9}, "model.classes: 9 is fewer than the 10 classes of cifar10"),
    ({"model.input_size": 64}, "model.input_size: cifar10 has images of 32x32, got 64"),
    ({"optimizer.lr": 0}, "optimizer.lr: got 0 (allowed: a number, above 0 and at most 100)"),
    ({"optimizer.lr": -0.1}, "optimizer.lr: got -0.1 (allowed: a number, above 0 and at most 100)"),
    ({"optimizer.beta2": 1.0}, "optimizer.beta2: got 1.0 (allowed: a number, at least 0 and below 1)"),
    ({"optimizer.amsbound": True}, "optimizer.amsbound: got True (allowed: False)"),
    ({"training.epochs": 0}, "training.epochs: got 0 (allowed: a whole number, at least 1 and at most 100000)"),
    ({"training.epochs": 1e3}, "training.epochs: got 1000.0 (allowed: a whole number, at least 1 and at most 100000)"),
    ({"training.patience": 0}, "training.patience: got 0 (allowed: a whole number, at least 1"),
    (
        {"training.batch_size": 50_001},
        "training.batch_size: 50001 is larger than the training split of cifar10 (allowed: 1 to 50000)",
    ),
    (
        {"training.batch_size": 1, "model.batch_norm": "all"},
        "training.batch_size: 1 has no variance to normalize by (allowed with batch_norm: 2 or more)",
    ),
    (
        {"training.batch_size": 1438, "data.dataset": "digits"},
        "training.batch_size: 1438 is larger than the training split of digits (allowed: 1 to 1437)",
    ),
    ({"seed": -1}, "seed: got -1 (allowed: a whole number, at least 0 and at most 2147483647)"),
    ({"seed": 2**31}, "seed: got 2147483648 (allowed: a whole number, at least 0 and at most 2147483647)"),
    ({"seed": True}, "seed: got True (allowed: a whole number"),
    (
        {"semantics": spec_module.TRAINING_SEMANTICS + 1},
        "semantics: got 2 (allowed: a whole number, at least 1 and at ",
    ),
    ({"data": 5}, "data: got 5 (allowed: a group of settings)"),
    ({"training": [1]}, "training: got [1] (allowed: a group of settings)"),
    ({"optimizer": "adam"}, "optimizer: got 'adam' (allowed: a group of settings)"),
    (
        {"model": {"name": "alexnet"}},
        "'model': got {'name': 'alexnet'}; use dotted names, for example model.first_kernel: 5",
    ),
    ({"model": 5}, "'model': is set both as a value and as a group of settings"),
    ({"model.name.x": 1}, "'model.name.x': 'name' is a value, not a group of settings"),
    ({"seed.x": 1}, "seed: got {'x': 1} (allowed: a whole number"),
    ({"model.squeeze_ratio.x": 1}, "model.squeeze_ratio: got {'x': 1} (allowed: a number"),
]


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[said[:50] for _, said in BAD])
def test_a_bad_setting_is_one_line_that_says_what_is_allowed(changes, said):
    settings = {**SQUEEZENET_BN, "model.pools": ["conv1"], **changes}
    if "model.name" in changes and changes["model.name"] != "alexnet":
        settings.pop("model.pools")
    with pytest.raises(InputError) as excinfo:
        resolve(settings, "study.yaml: variants.row")
    message = str(excinfo.value)
    assert message.startswith("study.yaml: variants.row: ")
    assert said in message
    assert len(message.splitlines()) == 1
    assert len(message) < 700


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "test: model: is required"),
        ({"optimizer.lr": 0.1}, "test: model: is required"),
        ({"model.dropout": 0.5}, "test: model.name: is required (allowed: alexnet, python, squeezenet, torchvision)"),
        (
            {"model.name": "alexnet", "optimizer.name": None},
            "optimizer.name: unknown value None (allowed: adabound, adam, adamw, sgd)",
        ),
        (
            {"model.name": "alexnet", "model.batch_norm": "fire"},
            "model.batch_norm: unknown value 'fire' (allowed: all, none)",
        ),
        (
            {"model.name": "alexnet", "model.input_size": 8},
            "model.input_size: got 8 (allowed: a whole number, at least 16",
        ),
    ],
)
def test_what_is_missing_or_of_another_model_is_said(settings, said):
    with pytest.raises(InputError, match=re.escape(said)):
        resolve(settings, "test")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
some_name = st.sampled_from(sorted(flatten(run()))) | st.text() | st.text("model.s\n", max_size=12)


@given(st.dictionaries(some_name, anything, max_size=4))
def test_no_settings_raise_anything_but_one_line(settings):
    try:
        resolve({**SQUEEZENET_BN, **settings}, "test")
    except InputError as error:
        message = str(error)
        assert message.startswith("test: ")
        assert len(message.splitlines()) == 1
        assert len(message) < 3_000
