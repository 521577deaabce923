"""The study on DFT labels: which frames it trains on, chooses with and tests on, and its errors. Nothing is trained."""

from collections import Counter

import numpy as np
import pytest

ase = pytest.importorskip("ase")
common = pytest.importorskip("profiling.studies.common")
dft = pytest.importorskip("profiling.studies.dft")


def frames(topologies, start=0):
    found = []
    for k, topology in enumerate(topologies):
        atoms = ase.Atoms("SiO2", positions=[[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]], cell=[6, 6, 6], pbc=True)
        atoms.info.update(REF_energy=-24.0 - 0.01 * k, config_type=topology, frame=start + k)
        atoms.arrays["REF_forces"] = np.full((3, 3), 0.1 * (k + 1))
        found.append(atoms)
    return found


def test_smaller_training_sets_are_parts_of_larger_ones_and_topologies_share_evenly():
    names = [name for name in "abcdefghi" for _ in range(24)]
    order = dft.training_order(names)
    assert order == dft.training_order(names)
    assert sorted(order) == list(range(len(names)))
    assert order != dft.training_order(names, seed=2)
    for size in (6, 9, 24, 100):
        counts = Counter(names[k] for k in order[:size])
        assert len(counts) == min(size, 9)
        assert max(counts.values()) - min(counts.values()) <= (1 if size >= 9 else 0)


def test_frames_that_choose_the_epoch_are_not_evaluated(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "dft"
    folder.mkdir(parents=True)
    ase_io = pytest.importorskip("ase.io")
    ase_io.write(folder / "si_zeo22_valid.xyz", frames([f"v{k // 3}" for k in range(270)]), format="extxyz")
    held = frames([f"h{k // 25}" for k in range(300)], start=1000)
    ase_io.write(folder / "si_zeo22_test_heldout.xyz", held, format="extxyz")
    monkeypatch.setattr(common, "SHARED", tmp_path)
    tested, validation = dft.sets()
    chosen = {atoms.info["frame"] for atoms in validation}
    same = {atoms.info["frame"] for atoms in tested["same topologies"]}
    assert len(chosen) == dft.VALIDATED and len(same) == dft.EVALUATED
    assert not chosen & same
    assert len({atoms.info["config_type"] for atoms in tested["new topologies"]}) == 12


def test_errors_by_topology():
    held = frames(["x", "y", "x"])
    found = [(atoms.info["REF_energy"] + off, atoms.arrays["REF_forces"] + 0.02) for atoms, off in
             zip(held, (0.003, 0.006, -0.003), strict=True)]  # fmt: skip
    whole = dft.figures(held, found)
    assert whole["mae_e_meV_per_atom"] == pytest.approx(4 / 3)
    assert whole["mean_e_meV_per_atom"] == pytest.approx(2 / 3)
    assert whole["rmse_e_meV_per_atom"] == pytest.approx(np.sqrt(2))
    assert whole["rmse_f_meV_per_A"] == pytest.approx(20.0)
    x, y = dft.by_topology(held, found)
    assert (x["topology"], y["topology"]) == ("x", "y")
    assert x["mean_e_meV_per_atom"] == pytest.approx(0.0, abs=1e-9)
    assert y["mae_e_meV_per_atom"] == pytest.approx(2.0)


def test_missing_data_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "SHARED", tmp_path)
    with pytest.raises(FileNotFoundError, match="SILICA_SHARED"):
        dft.sets()
