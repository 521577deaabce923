"""Keys of a training refused by name; optimizer, schedule and average against those of mace-torch and torch."""

import re
import types

import pytest
import torch
from training_frames import TINY

from silica_md.errors import ConfigError
from silica_md.training import settings
from silica_md.training.optimizer import Average, Schedule, make_optimizer


def made(**changes):
    return settings.from_dict({"train_file": "a.xyz"} | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bach_size": 3}, "unknown key `bach_size`; did you mean `batch_size`?"),
        ({"batch_size": 0}, "`batch_size` must be positive"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number, got 2.5"),
        ({"lr": -1.0}, "`lr` must be positive"),
        ({"ema_decay": 1.0}, "`ema_decay` must be between 0 and 1"),
        ({"ema": 1}, "`ema` must be true or false"),
        ({"model": "lsd"}, "`model` must be sr or rsa or"),
        ({"loss": "huber"}, "`loss` must be weighted or stress"),
        ({"E0s": "isolated"}, '`E0s` must be "average" or a table'),
        ({"E0s": {"Xx": 1.0}}, "`E0s` has the key `Xx`, which is no element"),
        ({"E0s": {"O": "low"}}, "`E0s.O` must be a number"),
        ({"E0s": 3}, "`E0s` must be text in quotes or a table"),
        ({"long_range": {"heads": 2}}, '`long_range` has no use with model = "sr"'),
        ({"model": "rsa", "long_range": {"kind": "rsga"}}, "`long_range` must not hold `kind`"),
        ({"energy_weight": 0, "forces_weight": 0}, "there is nothing to learn"),
        ({"forces_weight": 0}, 'use "std_scaling"'),
        ({"swa": True, "start_swa": 2048}, "`start_swa` must be between 1 and"),
        ({"start_swa": 3}, "`start_swa` has no use without swa = true"),
        ({"train_file": []}, "`train_file` must name at least one file"),
        ({"train_file": [3]}, "`train_file` must be a list of names"),
    ],
)
def test_wrong_settings(changes, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        made(**changes)


def test_settings_survive_toml_and_json(tmp_path):
    from silica_md.report.toml import as_toml

    one = made(model="rsa", long_range={"heads": 2}, swa=True, E0s={"O": -1.5}, valid_file=["b.xyz", "c.xyz"])
    given = {key: value for key, value in one.to_dict().items() if value not in (None, [], {})}
    (tmp_path / "again.toml").write_text(as_toml(given))
    assert settings.load(tmp_path / "again.toml") == one == settings.from_dict(one.to_dict())
    assert one.first_epoch_of_stage_two == 1536 and one.weights(2) == {"energy": 1000.0, "forces": 100.0}
    assert made(loss="stress", stress_weight=2).weights(1)["stress"] == 2.0


def test_keys_are_the_flags_of_mace_run_train():
    """Every key but our own is a flag there, and of the same default where it means the same."""
    from silica_md.models import _mace  # noqa: F401  (first: it makes e3nn importable)
    from mace.tools import build_default_arg_parser  # isort: skip

    theirs = vars(build_default_arg_parser().parse_args(["--name", "x"]))
    own = {
        "labels_contain_dispersion", "long_range", "allow_small_cells", "threads", "checkpoint_seconds",
        "config_type_weights", "atomic_numbers", "scaling", "radial_MLP", "valid_file", "test_file", "train_file",
        "model", "E0s", "hidden_irreps", "correlation", "max_ell", "device", "compute_stress", "avg_num_neighbors",
        "interaction_first", "interaction", "distance_transform", "pair_repulsion",
    }  # fmt: skip
    assert {key for key in made().to_dict() if key not in theirs} == {
        "labels_contain_dispersion", "long_range", "allow_small_cells", "threads", "checkpoint_seconds"
    }  # fmt: skip
    ours = made().to_dict()
    different = {key for key in ours.keys() - own if ours[key] != theirs[key]}
    assert not different


def test_the_weights_that_decay_are_those_of_mace():
    from silica_md import models
    from silica_md.models import _mace  # noqa: F401
    from mace.tools.scripts_utils import get_params_options  # isort: skip

    keys = ("r_max", "num_interactions", "hidden_irreps", "MLP_irreps", "max_ell", "correlation", "radial_MLP")
    config = models.ModelConfig((8, 14), (0.0, 0.0), **{key: TINY[key] for key in keys})
    model = models.build(config)
    arguments = types.SimpleNamespace(
        lr=0.01, weight_decay=0.3, amsgrad=True, beta=0.9, freeze=None, lr_params_factors="{}"
    )
    expected = {}
    for group in get_params_options(arguments, model)["params"]:
        expected |= {id(parameter): group["weight_decay"] for parameter in group["params"]}
    optimizer = make_optimizer(model, made(weight_decay=0.3))
    found = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert found == expected and set(found.values()) == {0.0, 0.3}


def test_the_schedule_is_that_of_torch():
    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.Adam([weight], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.7, patience=2)
    ours = Schedule(made(lr=0.5, lr_factor=0.7, scheduler_patience=2))
    for loss in torch.rand(60, generator=torch.Generator().manual_seed(1)).tolist():
        scheduler.step(loss)
        ours.after_evaluation(loss)
        ours.after_epoch()
        assert ours.lr == theirs.param_groups[0]["lr"]
    assert ours.lr < 0.5
    exponential = Schedule(made(lr=0.5, scheduler="ExponentialLR", lr_scheduler_gamma=0.5))
    exponential.after_evaluation(1.0)
    exponential.after_epoch()
    assert exponential.lr == 0.25


def test_the_average_is_that_of_torch_ema():
    from torch_ema import ExponentialMovingAverage

    weights = [torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]
    theirs, ours = ExponentialMovingAverage(weights, 0.9), Average(weights, 0.9)
    for number in range(30):
        with torch.no_grad():
            weights[0].mul_(1.0 + 0.1 * (-1) ** number).add_(0.01)
        theirs.update()
        ours.update()
    torch.testing.assert_close(ours.averages, theirs.shadow_params, rtol=1e-14, atol=0.0)
    before = weights[0].detach().clone()
    with ours.applied():
        assert torch.equal(weights[0], ours.averages[0])
    assert torch.equal(weights[0], before) and not torch.equal(before, ours.averages[0])
