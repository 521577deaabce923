"""Trainings from beginning to end: they learn, resume, share out their work, and leave what they promise."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_frames import labelled, tiny, written

from silica_md import checkpoint, cli, models
from silica_md.errors import ConfigError, DataError, RunAborted, RunExistsError
from silica_md.train import train
from silica_md.training import dataset
from silica_md.training.distributed import Group
from silica_md.training.evaluate import error_table, predict, total_loss
from silica_md.training.folder import TrainingFolder

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    tiny(folder)
    return folder


@pytest.fixture(scope="module")
def full(folder):
    """A training with all its trimmings, and its settings."""
    settings = tiny(
        folder, model="rsa", long_range={"heads": 2}, loss="stress", ema=True, swa=True, start_swa=3, swa_lr=0.003,
        test_file=str(folder / "valid.xyz"), labels_contain_dispersion="PBE-D3(BJ)", hidden_irreps="4x0e + 4x1o",
    )  # fmt: skip
    return train(settings, folder / "full", show=False), settings


def rows_of(path):
    with open(path / "epochs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_leaves_what_it_promises(folder, full):
    result, _ = full
    out = TrainingFolder(folder / "full")
    rows = rows_of(out.path)
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3] and [row["stage"] for row in rows] == ["1"] * 3 + ["2"]
    assert [float(row["lr"]) for row in rows] == [0.01] * 3 + [0.003]
    assert (result.epochs, result.steps, result.best_epoch) == (4, 12, 3)
    for name in ("energy_parity", "force_parity", "stress_parity", "learning_curve", "error_curve", "learning_rate"):
        assert (out.path / "report" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    page = out.report.read_text(encoding="utf-8")
    assert page.count("<img") == 6 and "MACE, RSA" in page and "silica-md train" in page
    summary = json.loads(out.summary.read_text(encoding="utf-8"))
    assert summary["errors"] == result.errors and set(summary["errors"]) == {"train", "valid", "test"}
    assert summary["errors"]["test"] == summary["errors"]["valid"]  # the same frames
    assert [row["of"] for row in result.errors["train"]] == [
        "all", "O", "Si", "config_type hard", "config_type soft"
    ]  # fmt: skip
    log = out.log.read_text(encoding="utf-8")
    assert "stage two begins at epoch 3" in log and "errors (meV/atom" in log


def test_the_saved_model_gives_the_numbers_of_the_table(folder, full):
    result, settings = full
    model, record = models.load(folder / "full" / "model.safetensors")
    assert record["extra"]["settings"] == settings.to_dict() and record["extra"]["best_epoch"] == 3
    assert set(record["extra"]["sha256"]) == {str(folder / "train.xyz"), str(folder / "valid.xyz")}
    data = dataset.load(settings, lambda line: None)
    assert model.config == data.config
    for name, part in data.parts.items():
        predictions = predict(model, part.graphs, 2, replace(settings, valid_batch_size=3), Group(), "cpu")
        table = error_table(predictions, part.frames, data.energies, settings)
        for found, expected in zip(table, result.errors[name], strict=True):
            assert found.keys() == expected.keys()
            for key, value in found.items():
                wanted = expected[key]
                assert value == (pytest.approx(wanted, rel=1e-9) if isinstance(wanted, float) else wanted), key
    valid = predict(model, data.parts["valid"].graphs, 2, settings, Group(), "cpu")
    again = total_loss(valid, data.parts["valid"].frames, data.energies, settings.weights(2))
    assert again == pytest.approx(record["extra"]["valid_loss"], rel=1e-9)
    assert float(rows_of(folder / "full")[3]["valid_loss"]) == pytest.approx(again, rel=1e-8)
    # Energies of the model are the interaction energies the loss sees, and those of the isolated atoms.
    graph = data.parts["valid"].graphs[0]
    from silica_md.training.graphs import collate

    output = model(collate([graph], 2).inputs)
    isolated = sum(data.energies[z] for z in data.parts["valid"].frames[0].atomic_numbers.tolist())
    assert float(output["energy"] - output["interaction_energy"]) == pytest.approx(isolated, rel=1e-12)


def test_dispersion_is_marked_in_the_model(folder, full):
    _, record = models.load(folder / "full" / "model.safetensors")
    assert models.ModelConfig.from_dict(record["config"]).dispersion == "PBE-D3(BJ)"
    one, _ = models.load(folder / "full" / "model_stage_one.safetensors")
    two, _ = models.load(folder / "full" / "model.safetensors")
    assert one.config.dispersion == two.config.dispersion == "PBE-D3(BJ)"
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("model", ["sr", "latent_ewald"])
def test_it_learns_a_few_frames_by_heart(folder, model):
    settings = tiny(
        folder, model=model, train_file=written(folder / "few.xyz", labelled(2, seed=9)), batch_size=2, lr=0.03,
        max_num_epochs=150, eval_interval=150, hidden_irreps="8x0e", max_ell=2,
    )  # fmt: skip
    result = train(settings, folder / f"few-{model}", show=False, report=False)
    losses = [float(row["train_loss"]) for row in rows_of(folder / f"few-{model}")]
    assert losses[-1] < losses[0] / 50
    assert result.errors["train"][0]["relative_rmse_f_percent"] < 15


def test_the_average_and_stage_two_change_what_they_should(folder):
    short = {"max_num_epochs": 3, "batch_size": 4}
    plain = train(tiny(folder, **short), folder / "plain", show=False, report=False)
    average = train(tiny(folder, ema=True, ema_decay=0.9, **short), folder / "ema", show=False, report=False)
    staged = tiny(folder, swa=True, start_swa=2, swa_lr=0.0005, swa_energy_weight=5000.0, **short)
    stage = train(staged, folder / "stage", show=False, report=False)
    one, two, three = (rows_of(folder / name) for name in ("plain", "ema", "stage"))
    # The average changes what is evaluated, not what is learned.
    assert [row["train_loss"] for row in one] == [row["train_loss"] for row in two]
    assert [row["valid_loss"] for row in one] != [row["valid_loss"] for row in two]
    ends = [
        {
            name: array
            for name, array in checkpoint.load(checkpoint.newest(folder / name / "checkpoints")).arrays.items()
        }
        for name in ("plain", "ema")
    ]
    weights = [name for name in ends[0] if name.startswith("weight.")]
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in weights)
    for name in weights:  # it lies between the start and the end: nearer to the end than the start was
        k = name.split(".")[1]
        assert not np.array_equal(ends[1][f"average.{k}"], ends[1][name]) or not ends[1][name].any()
    best = [list(result.model.parameters()) for result in (plain, average)]
    assert any(not torch.equal(a, b) for a, b in zip(*best, strict=True))
    # Until stage two everything is as without; then the loss has other weights, and the rate is its own.
    columns = [key for key in one[0] if key not in ("seconds",)]
    assert [[row[key] for key in columns] for row in one[:2]] == [[row[key] for key in columns] for row in three[:2]]
    assert three[2]["lr"] == "0.0005" and float(three[2]["train_loss"]) > 1.5 * float(one[2]["train_loss"])
    assert stage.best_epoch == 2


def test_killed_and_resumed_ends_in_the_same_bits(tmp_path):
    script = Path(__file__).with_name("killing_train.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path, "3"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(trials) == 3
    for trial in trials:
        assert trial["differences"] == []
    killed = [trial for trial in trials if trial["status"] == signal.SIGKILL]
    assert len(killed) >= 2 and any(0 < trial["step"] < trial["of"] for trial in killed)


def test_two_processes_are_one(folder):
    """Seven frames of 9 and 18 atoms in steps of four, the last of three: unequal shares, summed as one.

    Rounding only: sums of the two halves in another order, 1e-16 a step, amplified by Adam's division by small
    gradients; 1e-9 of the largest weight after nine steps in float64 leaves three digits.
    """
    mixed = labelled(5, seed=6) + [atoms.repeat((2, 1, 1)) for atoms in labelled(2, seed=7)]
    for atoms in mixed[5:]:
        atoms.info["REF_energy"] *= 2
    settings = tiny(
        folder, train_file=written(folder / "mixed_sizes.xyz", mixed), batch_size=4, max_num_epochs=4, ema=True,
        loss="stress", checkpoint_seconds=1e9,
    )  # fmt: skip
    alone = train(settings, folder / "alone", show=False, report=False)
    (folder / "settings.json").write_text(json.dumps(settings.to_dict()))
    script = folder / "together.py"
    script.write_text(
        "import json, sys\n"
        "from silica_md.train import train\n"
        "from silica_md.training import settings\n"
        "given = settings.from_dict(json.load(open(sys.argv[1])))\n"
        "result = train(given, sys.argv[2], report=False)\n"
        "print(result.errors['valid'][0])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*command, str(folder / "settings.json"), str(folder / "together")],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(shown) == 2 and shown[0] == shown[1]  # both processes have all of the result
    both, _ = models.load(folder / "together" / "model.safetensors")
    for one, two in zip(alone.model.parameters(), both.parameters(), strict=True):
        off = float((one - two).detach().abs().max())
        assert off <= 1e-9 * max(float(one.detach().abs().max()), 1.0)
    one, two = rows_of(folder / "alone"), rows_of(folder / "together")
    for key in ("train_loss", "valid_loss", "rmse_f_meV_per_A"):
        assert [float(row[key]) for row in two] == pytest.approx([float(row[key]) for row in one], rel=1e-9)


def test_patience_ends_a_stage_and_then_the_training(folder):
    settings = tiny(folder, lr=1e-12, patience=2, swa=True, start_swa=20, swa_lr=1e-12, max_num_epochs=40)
    settings = replace(settings, scheduler="ExponentialLR", lr_scheduler_gamma=0.5, clip_grad=1e-9)
    train(settings, folder / "patient", show=False, report=False)
    rows = rows_of(folder / "patient")
    stages = [int(row["stage"]) for row in rows]
    assert stages == sorted(stages) and set(stages) == {1, 2} and len(rows) < 40
    assert int(next(row["epoch"] for row in rows if row["stage"] == "2")) == 20
    assert float(rows[1]["lr"]) == 5e-13


def test_evaluations_are_as_rare_as_asked_for(folder):
    train(tiny(folder, eval_interval=3, max_num_epochs=5), folder / "rare", show=False, report=False)
    assert [bool(row["valid_loss"]) for row in rows_of(folder / "rare")] == [False, False, True, False, True]


def test_what_cannot_be_trained_leaves_no_folder(folder):
    for changes, kind, says in (
        ({"model": "rsa", "long_range": {"headz": 2}}, ValueError, "headz"),
        ({"stress_key": "virial", "loss": "stress"}, DataError, "train.xyz, frame 0 has no `virial`"),
        ({"train_file": "nowhere.xyz"}, DataError, "cannot read nowhere.xyz"),
        ({"hidden_irreps": "4x0q"}, ValueError, "4x0q"),
    ):
        with pytest.raises(kind, match=says):
            train(tiny(folder, **changes), folder / "none", show=False)
    assert not (folder / "none").exists()


def test_a_loss_that_is_not_finite_stops_the_training(folder):
    settings = tiny(folder, lr=1e200, clip_grad=0, max_num_epochs=50)
    with pytest.raises(RunAborted, match=r"the loss or its gradient is .*there is no checkpoint yet"):
        train(settings, folder / "diverged", show=False)


def test_a_folder_is_not_overwritten_and_data_must_stay(folder, full):
    _, settings = full
    with pytest.raises(RunExistsError, match="is not overwritten"):
        train(settings, folder / "full", show=False)
    with pytest.raises(ConfigError, match="there is no training in"):
        TrainingFolder(folder / "nothing").read_settings()
    assert TrainingFolder(folder / "full").read_settings() == settings
    own = folder / "own.xyz"
    written(own, labelled(5, seed=1))
    train(tiny(folder, train_file=str(own), max_num_epochs=1), folder / "changed", show=False, report=False)
    written(own, labelled(5, seed=2))
    with pytest.raises(ConfigError, match=r"own.xyz has changed since"):
        TrainingFolder(folder / "changed").read_settings()


def test_the_command(folder, capsys):
    from silica_md.report.toml import as_toml

    plain = tiny(folder, max_num_epochs=2).to_dict()
    (folder / "tiny.toml").write_text(
        as_toml({key: value for key, value in plain.items() if value not in (None, [], {})})
    )
    assert cli.main(["train", str(folder / "tiny.toml"), "--out", str(folder / "command")]) == 0
    shown = capsys.readouterr().err
    assert "train: 7 frames" in shown and "left" in shown and "report.html" in shown and "valid all" in shown
    assert cli.main(["train", "--resume", "--out", str(folder / "command")]) == 0
    assert "is finished" in capsys.readouterr().err
    assert cli.main(["train", str(folder / "tiny.toml"), "--out", str(folder / "command"), "--resume"]) == 1
    assert "cannot change a training that is resumed" in capsys.readouterr().err
    assert cli.main(["train"]) == 1
    assert "name the settings" in capsys.readouterr().err


def test_only_one_file_knows_torch_distributed():
    speak = [
        path.name
        for path in sorted((ROOT / "silica_md").rglob("*.py"))
        if "import torch.distributed" in path.read_text(encoding="utf-8")
    ]
    assert speak == ["distributed.py"]
