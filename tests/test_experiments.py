"""The declarations against the paper: every number that it prints, and what each row sets."""

from __future__ import annotations

import re

import pytest

from repro import studies
from repro.spec import flatten, resolve
from repro.studies import DECLARATIONS

# Tables 1 to 7, copied from the paper row by row: title, accuracy in percent, epochs, seconds an epoch, size.
TABLES = {
    1: {
        "alexnet": ("AlexNet", 75.42, 18, 17.45, 88.78),
        "alexnet_bn": ("AlexNet, batchnorm", 79.22, 15, 20.12, 88.78),
        "squeezenet": ("SqueezeNet", 70.76, 30, 29.95, 2.95),
        "squeezenet_bn": ("SqueezeNet, batchnorm", 73.72, 52, 37.19, 2.95),
    },
    2: {
        "fire_added": ("Fire layers added", 10.0, 10, 25.15, 3.4),
        "fire_added_bn": ("Fire layers added, batchnorm", 70.12, 54, 26.47, 3.48),
        "fire_removed": ("Fire layers removed", 70.34, 80, 18.85, 1.95),
        "fire_removed_bn": ("Fire layers removed, batchnorm", 70.44, 96, 19.29, 2.0),
    },
    3: {
        "residual": ("Residual", 74.84, 59, 37.71, 2.95),
        "residual_2_removed": ("Residual (2 layers removed)", 75.42, 30, 29.95, 1.4),
        "residual_4_removed": ("Residual (4 layers removed)", 73.60, 33, 23.21, 0.563),
        "residual_2_added": ("Residual (2 layers added)", 75.44, 34, 48.55, 8.62),
        "residual_2_replicated": ("Residual (2 layers replicated)", 75.36, 22, 40.30, 3.15),
        "residual_4_replicated": ("Residual (4 layers replicated)", 74.72, 34, 45.47, 4.35),
    },
    4: {
        "sr_0125": ("SR 0.125 (default)", 73.72, 52, 37.19, 2.95),
        "sr_025": ("SR 0.25", 76.48, 59, 54.21, 5.65),
        "sr_05": ("SR 0.5", 77.6, 94, 53.29, 11.14),
        "sr_075": ("SR 0.75", 77.92, 81, 35.18, 16.63),
    },
    5: {
        "share_12": ("12.5% 3x3", 72.62, 41, 34.49, 1.49),
        "share_25": ("25% 3x3", 74.08, 32, 34.29, 1.96),
        "share_50": ("50% 3x3 (default)", 73.72, 52, 37.19, 2.95),
        "share_75": ("75% 3x3", 73.02, 41, 34.21, 3.84),
    },
    6: {
        "kernel_1": ("1x1 starting kernel size", 64.78, 12, 33.80, 2.85),
        "kernel_3": ("3x3 starting kernel size", 75.32, 66, 34.29, 2.86),
        "kernel_5": ("5x5 starting kernel size", 76.74, 80, 34.57, 2.87),
    },
    7: {
        "lr_001": ("0.01", 59.02, 30, 26.10, 2.95),
        "lr_005": ("0.05", 43.14, 29, 25.07, 2.95),
        "lr_01": ("0.1", 68.98, 43, 24.28, 2.95),
        "lr_02": ("0.2", 52.40, 26, 24.82, 2.95),
        "lr_05": ("0.5", 14.76, 3, 24.76, 2.95),
    },
}

# What the running text says: of rows of the tables, where it differs, and of what stands in no table.
TEXT = {
    "reproducibility/squeezenet": {"epochs": 84, "epoch_seconds": 25.26},
    "first_kernel/kernel_5": {"accuracy": 75.74},
}
TEXT_ONLY = {
    "batch_norm/bn_none": {"accuracy": 70.76},
    "batch_norm/bn_fire": {"accuracy": 73.4},
    "batch_norm/bn_outside": {},
    "batch_norm/bn_all": {"accuracy": 73.72},
    "optimizer/adabound": {"accuracy": 70.76},
    "optimizer/adam_004": {"accuracy_at_most": 14.76},
    "optimizer/adam_0001": {"accuracy_at_most": 14.76},
    "optimizer/sgd_004": {"accuracy_at_most": 14.76},
    "optimizer/sgd_001": {"accuracy_at_most": 14.76},
    "weight_decay/none": {"accuracy": 70.76},
    "weight_decay/wd_00002": {"accuracy": 70.76},
    "weight_decay/wd_00005": {"accuracy": 70.76},
    "weight_decay/none_bn": {"accuracy": 73.72},
    "weight_decay/wd_00002_bn": {"accuracy": 73.72},
    "weight_decay/wd_00005_bn": {"accuracy": 73.72},
    "best/best": {"accuracy": 78.12, "test_accuracy": 76.34, "epochs": 89, "epoch_seconds": 27.94, "size": 1.37},
}
UNPUBLISHED = {"augmentation", "demo", "expand_kernels", "frontier"}

# What each row sets beyond the defaults below: the architectures that fit the published sizes, and the declared readings.
BN = {"model.name": "squeezenet", "model.batch_norm": "all"}
PLAIN = {"model.name": "squeezenet"}
SIMPLE = {**BN, "model.residual": "simple"}
FRONTIER = {
    **BN,
    "model.conv_bias": False,
    "model.residual": "simple",
    "model.first_kernel": 3,
    "model.first_stride": 1,
    "model.first_padding": 1,
    "model.pools": ["conv1", "fire3"],
    "model.fire_modules": 4,
    "model.squeeze_ratio": 0.25,
}


def _frontier(filters, base, growth, dropout=0.0):
    widths = {"model.first_filters": filters, "model.base_e": base, "model.incr_e": growth}
    return widths | {"model.dropout": dropout}


FRONTIER_ROWS = {
    "width_64": _frontier(32, 64, 32, dropout=0.2),
    "width_48": _frontier(24, 48, 16),
    "width_40": _frontier(24, 40, 16),
    "width_32": _frontier(24, 32, 16),
    "width_32_even": _frontier(16, 32, 0),
    "width_24": _frontier(16, 24, 8),
    "width_16": _frontier(16, 16, 8),
    "width_16_even": _frontier(12, 16, 0),
}
SETTINGS = {
    "reproducibility/alexnet": {"model.name": "alexnet"},
    "reproducibility/alexnet_bn": {"model.name": "alexnet", "model.batch_norm": "all"},
    "reproducibility/squeezenet": PLAIN,
    "reproducibility/squeezenet_bn": BN,
    "ablation/fire_added": {**PLAIN, "model.replicated": ["fire3", "fire7"]},
    "ablation/fire_added_bn": {**BN, "model.replicated": ["fire3", "fire7"]},
    "ablation/fire_removed": {**PLAIN, "model.removed": ["fire4", "fire8"]},
    "ablation/fire_removed_bn": {**BN, "model.removed": ["fire4", "fire8"]},
    "residual/residual": SIMPLE,
    "residual/residual_2_removed": {**SIMPLE, "model.fire_modules": 6},
    "residual/residual_4_removed": {**SIMPLE, "model.fire_modules": 4},
    "residual/residual_2_added": {**SIMPLE, "model.fire_modules": 12},
    "residual/residual_2_replicated": {**SIMPLE, "model.replicated": ["fire3", "fire5"]},
    "residual/residual_4_replicated": {**SIMPLE, "model.replicated": ["fire3", "fire5", "fire7", "fire9"]},
    "squeeze_ratio/sr_0125": BN,
    "squeeze_ratio/sr_025": {**BN, "model.squeeze_ratio": 0.25},
    "squeeze_ratio/sr_05": {**BN, "model.squeeze_ratio": 0.5},
    "squeeze_ratio/sr_075": {**BN, "model.squeeze_ratio": 0.75},
    "expand_3x3/share_12": {**BN, "model.expand_3x3": 0.125},
    "expand_3x3/share_25": {**BN, "model.expand_3x3": 0.25},
    "expand_3x3/share_50": BN,
    "expand_3x3/share_75": {**BN, "model.expand_3x3": 0.75},
    "first_kernel/kernel_1": {**BN, "model.first_kernel": 1},
    "first_kernel/kernel_3": {**BN, "model.first_kernel": 3},
    "first_kernel/kernel_5": {**BN, "model.first_kernel": 5},
    "learning_rate/lr_001": {**PLAIN, "optimizer.final_lr": 0.01},
    "learning_rate/lr_005": {**PLAIN, "optimizer.final_lr": 0.05},
    "learning_rate/lr_01": {**PLAIN, "optimizer.final_lr": 0.1},
    "learning_rate/lr_02": {**PLAIN, "optimizer.final_lr": 0.2},
    "learning_rate/lr_05": {**PLAIN, "optimizer.final_lr": 0.5},
    "batch_norm/bn_none": PLAIN,
    "batch_norm/bn_fire": {**PLAIN, "model.batch_norm": "fire"},
    "batch_norm/bn_outside": {**PLAIN, "model.batch_norm": "outside"},
    "batch_norm/bn_all": BN,
    "optimizer/adabound": PLAIN,
    "optimizer/adam_004": {**PLAIN, "optimizer.name": "adam", "optimizer.lr": 0.04, "optimizer.weight_decay": 0.0002},
    "optimizer/adam_0001": {**PLAIN, "optimizer.name": "adam", "optimizer.lr": 0.001, "optimizer.weight_decay": 0.0002},
    "optimizer/sgd_004": {
        **PLAIN,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.04,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.0002,
    },
    "optimizer/sgd_001": {
        **PLAIN,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.01,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.0002,
    },
    "weight_decay/none": {**PLAIN, "optimizer.weight_decay": 0.0},
    "weight_decay/wd_00002": {**PLAIN, "optimizer.weight_decay": 0.0002},
    "weight_decay/wd_00005": {**PLAIN, "optimizer.weight_decay": 0.0005},
    "weight_decay/none_bn": {**BN, "optimizer.weight_decay": 0.0},
    "weight_decay/wd_00002_bn": {**BN, "optimizer.weight_decay": 0.0002},
    "weight_decay/wd_00005_bn": {**BN, "optimizer.weight_decay": 0.0005},
    "best/best": {**SIMPLE, "model.fire_modules": 6, "model.first_kernel": 5},
    **{f"frontier/{slug}": {**FRONTIER, **changes} for slug, changes in FRONTIER_ROWS.items()},
    "augmentation/plain": {**BN, "training.epochs": 15},
    "augmentation/crop_flip_cosine": {
        **BN,
        "training.epochs": 15,
        "data.augmentation": "crop_flip",
        "optimizer.schedule": "cosine",
    },
    "expand_kernels/squeeze_1_expand_1_3": BN,
    "expand_kernels/squeeze_1_expand_1_5": {**BN, "model.expand_kernels": [1, 5]},
    "expand_kernels/squeeze_1_expand_3_3": {**BN, "model.expand_kernels": [3, 3]},
    "expand_kernels/squeeze_1_expand_3_5": {**BN, "model.expand_kernels": [3, 5]},
    "expand_kernels/squeeze_3_expand_1_3": {**BN, "model.squeeze_kernel": 3},
}

# What every row of the paper has in common, set nowhere and so taken from the defaults.
PROTOCOL = {
    "data.dataset": "cifar10",
    "data.normalisation": "channel",
    "data.augmentation": "none",
    "data.fold": None,
    "data.folds": None,
    "data.image_size": 32,
    "training.epochs": 100,
    "training.patience": 15,
    "training.batch_size": 50,
    "training.precision": "fp32",
    "training.label_smoothing": 0.0,
    "optimizer.name": "adabound",
    "optimizer.lr": 1e-3,
    "optimizer.final_lr": 0.04,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.gamma": 1e-3,
    "optimizer.weight_decay": 0.0002,  # by the study weight_decay
    "optimizer.amsbound": False,
    "model.dropout": 0.5,
    "model.conv_bias": True,
    "model.classes": 10,
    "model.input_size": 32,
}
SQUEEZENET = {  # version 1.0 by its metaparameters, with the geometry that trains as the paper reports
    "model.fire_modules": 8,
    "model.base_e": 128,
    "model.incr_e": 128,
    "model.freq": 2,
    "model.squeeze_ratio": 0.125,
    "model.expand_3x3": 0.5,
    "model.expand_kernels": [1, 3],
    "model.squeeze_kernel": 1,
    "model.first_kernel": 7,
    "model.first_stride": 2,
    "model.first_padding": 0,
    "model.first_filters": 96,
    "model.pools": ["conv1", "fire4", "fire8"],
    "model.replicated": [],
    "model.removed": [],
    "model.residual": "none",
    "model.batch_norm": "none",
    "model.head_relu": False,
}

DECLARED = {study.study: study for study in studies.declared()}
ROWS = {f"{study.study}/{slug}": variant for study in DECLARED.values() for slug, variant in study.variants.items()}
FILES = sorted(DECLARATIONS.glob("*.yaml"))


def test_all_thirty_rows_of_the_tables_are_declared_with_every_number():
    declared = {
        study.table: {
            slug: (
                row.title,
                row.published.accuracy,
                row.published.epochs,
                row.published.epoch_seconds,
                row.published.size,
            )
            for slug, row in study.variants.items()
        }
        for study in DECLARED.values()
        if study.table is not None
    }
    assert declared == TABLES
    assert [list(rows) for rows in declared.values()] == [list(rows) for rows in TABLES.values()]  # the paper's order
    assert sum(len(rows) for rows in declared.values()) == 30


def test_what_stands_only_in_the_text_is_declared():
    declared = {
        name: row.published.model_dump(exclude_defaults=True)
        for name, row in ROWS.items()
        if DECLARED[name.split("/")[0]].table is None and name.split("/")[0] not in UNPUBLISHED
    }
    assert declared == TEXT_ONLY


def test_where_the_text_contradicts_a_table_both_stand():
    assert {name: dict(row.published.text) for name, row in ROWS.items() if row.published.text} == TEXT


def test_nothing_is_published_of_what_the_paper_did_not_run():
    for name in UNPUBLISHED:
        for row in DECLARED[name].variants.values():
            assert row.published.model_dump(exclude_defaults=True) == {}


def test_every_row_has_its_settings_here():
    assert set(ROWS) - {f"demo/{slug}" for slug in DECLARED["demo"].variants} == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_sets_what_the_paper_says_and_nothing_else(name):
    study, slug = name.split("/")
    found = flatten(resolve(studies.settings(DECLARED[study], slug), name))
    wanted = PROTOCOL | (SQUEEZENET if SETTINGS[name]["model.name"] == "squeezenet" else {"model.batch_norm": "none"})
    if SETTINGS[name].get("optimizer.name", "adabound") != "adabound":
        wanted = {field: value for field, value in wanted.items() if not field.startswith("optimizer.")}
    schedule = {"schedule": "constant", "warmup_epochs": 0.0, "step_epochs": [], "step_factor": 0.1}
    wanted |= {f"optimizer.{field}": value for field, value in schedule.items()} | SETTINGS[name]
    assert {field: found[field] for field in wanted} == wanted
    filled_in = {"data.digest", "data.split_digest", "seed", "semantics", "optimizer.eps", "optimizer.weight_decay"}
    assert set(found) - set(wanted) <= filled_in | {"optimizer.beta1", "optimizer.beta2"}


def test_one_run_stands_in_tables_1_4_and_5():
    def key(name):
        study, slug = name.split("/")
        return resolve(studies.settings(DECLARED[study], slug), name).key

    shared = {key("reproducibility/squeezenet_bn"), key("squeeze_ratio/sr_0125"), key("expand_3x3/share_50")}
    assert len(shared) == 1
    assert shared == {key("batch_norm/bn_all"), key("expand_kernels/squeeze_1_expand_1_3")}
    assert len({key(name) for name in SETTINGS}) == len(SETTINGS) - 8  # 5 more of that run, 3 of SqueezeNet without it


def test_the_demo_is_the_paper_in_small():
    demo = DECLARED["demo"]
    keys = {slug: resolve(studies.settings(demo, slug), slug) for slug in demo.variants}
    assert {studies.based_on(demo, slug) for slug in keys} == {
        "reproducibility/alexnet",
        "reproducibility/alexnet_bn",
        "reproducibility/squeezenet",
        "reproducibility/squeezenet_bn",
        "ablation/fire_removed",
        "ablation/fire_removed_bn",
        "residual/residual",
    }
    for slug, spec in keys.items():
        study, row = studies.based_on(demo, slug).split("/")
        assert spec == resolve(studies.settings(DECLARED[study], row), row)


@pytest.mark.parametrize(
    ("study", "section", "axis"),
    [
        ("reproducibility", "5.1", None),
        ("ablation", "5.2", None),
        ("residual", "5.3.2", None),
        ("squeeze_ratio", "5.3.3", "model.squeeze_ratio"),
        ("expand_3x3", "5.3.4", "model.expand_3x3"),
        ("first_kernel", "5.3.5", "model.first_kernel"),
        ("learning_rate", "5.3.6", "optimizer.final_lr"),
        ("batch_norm", "5.3.1", None),
        ("optimizer", "5.3.6", None),
        ("expand_kernels", "6", None),
        ("best", "5.3.7", None),
    ],
)
def test_a_study_names_its_section_and_what_it_sweeps(study, section, axis):
    assert (DECLARED[study].section, DECLARED[study].axis) == (section, axis)
    if axis:
        values = [
            flatten(resolve(studies.settings(DECLARED[study], slug), slug))[axis] for slug in DECLARED[study].variants
        ]
        assert values == sorted(set(values))


def test_labels_choose_the_rows_that_the_entry_points_offer():
    assert DECLARED["reproducibility"].labels("model") == ["alexnet", "squeezenet"]
    assert DECLARED["ablation"].labels("fire") == ["added", "removed"]
    for study in (DECLARED["reproducibility"], DECLARED["ablation"]):
        for slug, row in study.variants.items():
            found = flatten(resolve(studies.settings(study, slug), slug))
            assert row.labels["batchnorm"] == {"none": "off", "all": "on"}[found["model.batch_norm"]]
            if "model" in row.labels:
                assert row.labels["model"] == found["model.name"]
            if "fire" in row.labels:
                assert bool(found["model.replicated"]) == (row.labels["fire"] == "added")
                assert bool(found["model.removed"]) == (row.labels["fire"] == "removed")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_begins_with_what_it_asks_and_the_command(path):
    lines = path.read_text().splitlines()
    head = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert len(head) >= 2
    assert re.match(r"# \S.*[.?]", head[0])
    command = re.match(r"#   mlflow run \.(?: -e (\w+))?((?: -P \w+=\w+)*)$", head[1])
    assert command, head[1]
    entry = command[1] or "main"
    assert f"study={path.stem}" in command[2] if entry == "experiment" else entry in {path.stem, "main"}
    assert lines[len(head)] == f"study: {path.stem}"


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.note])
def test_a_note_is_one_plain_line(name):
    assert ROWS[name].note == " ".join(ROWS[name].note.split())


NOTED = {  # published sizes that no declared architecture has, and readings that are ours: the row says so itself
    "reproducibility/alexnet_bn",
    "reproducibility/squeezenet",
    "reproducibility/squeezenet_bn",
    "residual/residual",
    "residual/residual_4_removed",
    "squeeze_ratio/sr_0125",
    "expand_3x3/share_50",
    *(f"ablation/{slug}" for slug in TABLES[2]),
    *(f"learning_rate/{slug}" for slug in TABLES[7]),
}


def test_the_rows_whose_size_does_not_fit_say_why():
    assert {name for name, row in ROWS.items() if row.note and row.published.size is not None} == NOTED
