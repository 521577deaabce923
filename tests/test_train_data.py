"""Frames, graphs and what a model begins with: read right, or refused by file, frame and key."""

import dataclasses

import numpy as np
import pytest
import torch
from training_frames import QUARTZ, labelled, tiny, written

from silica_md.errors import DataError
from silica_md.training import baseline, dataset
from silica_md.training.frames import describe, order, read_frames, split
from silica_md.training.graphs import collate, make_graphs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny(folder)
    return folder


def changed(folder, name, change, number=2):
    """A file of five frames, one of them changed."""
    frames = labelled(5)
    change(frames[number])
    return written(folder / name, frames)


def test_labels_come_back_as_they_were_written(folder):
    frames = read_frames([folder / "train.xyz"], tiny(folder, loss="stress"))
    for frame, atoms in zip(frames, labelled(7, seed=1), strict=True):
        assert frame.energy == pytest.approx(atoms.info["REF_energy"], rel=1e-10)
        np.testing.assert_allclose(frame.forces, atoms.arrays["REF_forces"], atol=1e-7)  # eight decimals in the file
        xx, yy, zz, yz, xz, xy = atoms.info["REF_stress"]
        np.testing.assert_allclose(frame.stress, [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], rtol=1e-7)
    assert [frame.config_type for frame in frames[:2]] == ["soft", "hard"]


def test_labels_under_the_names_ase_keeps_for_itself(folder):
    def rename(atoms):
        atoms.info["energy"], atoms.arrays["forces"] = atoms.info.pop("REF_energy"), atoms.arrays.pop("REF_forces")

    path = changed(folder, "plain.xyz", rename)
    frames = labelled(5)
    for atoms in frames:
        rename(atoms)
    path = written(folder / "plain.xyz", frames)
    found = read_frames([path], tiny(folder, energy_key="energy", forces_key="forces"))
    assert found[2].energy == pytest.approx(frames[2].info["energy"])
    np.testing.assert_allclose(found[2].forces, frames[2].arrays["forces"], atol=1e-7)


@pytest.mark.parametrize(
    ("label", "settings"),
    [("REF_energy", {}), ("REF_forces", {}), ("REF_stress", {"loss": "stress"}), ("REF_stress", {"compute_stress": 1})],
)
def test_a_missing_label_is_refused(folder, label, settings):
    def remove(atoms):
        (atoms.arrays if label == "REF_forces" else atoms.info).pop(label)

    path = changed(folder, "missing.xyz", remove)
    settings = {key: bool(value) if key == "compute_stress" else value for key, value in settings.items()}
    with pytest.raises(DataError, match=f"missing.xyz, frame 2 has no `{label}`"):
        read_frames([path], tiny(folder, **settings))


def test_a_label_that_is_not_asked_for_may_be_missing(folder):
    path = changed(folder, "missing.xyz", lambda atoms: atoms.arrays.pop("REF_forces"))
    frames = read_frames([path], tiny(folder, forces_weight=0, scaling="std_scaling"))
    assert np.isfinite(frames[2].energy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda atoms: atoms.info.update(REF_energy=np.nan), "frame 2: `REF_energy` is not finite"),
        (lambda atoms: atoms.info.update(REF_energy="low"), "frame 2: `REF_energy` must hold numbers"),
        (lambda atoms: atoms.info.update(REF_energy=np.ones(2)), r"`REF_energy` must have shape \(\), got \(2,\)"),
        (lambda atoms: atoms.info.update(REF_stress=np.arange(9.0).reshape(3, 3)), "the stress is not symmetric"),
        (lambda atoms: atoms.info.update(config_weight=-1.0), "frame 2: its weight is -1.0"),
        (lambda atoms: atoms.set_cell(np.zeros((3, 3))), "its cell has no volume"),
        (lambda atoms: atoms.set_cell(0.5 * atoms.cell.array), r"frame 2: the cell is 2\.\d+ Å wide, narrower than"),
        (lambda atoms: atoms.set_pbc((True, True, False)), "a stress needs a cell that is periodic"),
    ],
)
def test_a_frame_that_cannot_be_right_is_refused(folder, change, says):
    with pytest.raises(DataError, match=says):
        read_frames([changed(folder, "wrong.xyz", change)], tiny(folder, loss="stress"))


def test_files_that_hold_nothing(folder):
    (folder / "empty.xyz").write_text("")
    (folder / "words.xyz").write_text("this is\nno structure\n")
    for name, says in (("none.xyz", "cannot read"), ("empty.xyz", "empty.xyz"), ("words.xyz", "not extended XYZ")):
        with pytest.raises(DataError, match=says):
            read_frames([folder / name], tiny(folder))


def test_small_cells_count_every_image(folder):
    settings = tiny(folder, r_max=6.0, allow_small_cells=True)
    (frame,) = read_frames([written(folder / "one.xyz", labelled(1))], settings)
    (graph,) = make_graphs([frame], (8, 14), {8: 0.0, 14: 0.0}, 6.0, torch.float64)
    wide = written(folder / "wide.xyz", labelled(1)[0].repeat(3))
    (large,) = read_frames([wide], tiny(folder, forces_weight=0, scaling="no_scaling", r_max=6.0))
    (repeated,) = make_graphs([large], (8, 14), {8: 0.0, 14: 0.0}, 6.0, torch.float64)
    assert 27 * graph.edge_index.shape[1] == repeated.edge_index.shape[1]


def test_unknown_elements_and_mixed_periodicity(folder):
    sodium = labelled(2)
    sodium[1].numbers[0] = 11
    settings = tiny(folder, valid_file=written(folder / "sodium.xyz", sodium))
    with pytest.raises(
        DataError, match=r"sodium.xyz, frame 1 holds Na, which the model does not know \(it knows O, Si"
    ):
        dataset.load(settings, lambda line: None)
    mixed = labelled(2)
    mixed[1].pbc = (True, True, False)
    path = written(folder / "mixed.xyz", mixed)
    with pytest.raises(DataError, match=r"mixed.xyz, frame 1 \(valid\) is periodic along ab; model = \"rsa\""):
        dataset.load(tiny(folder, valid_file=path, model="rsa"), lambda line: None)
    dataset.load(tiny(folder, valid_file=path), lambda line: None)  # the short-range model takes it


def test_two_atoms_on_one_spot(folder):
    frames = labelled(1)
    frames[0].positions[4] = frames[0].positions[2]
    (frame,) = read_frames([written(folder / "spot.xyz", frames)], tiny(folder))
    with pytest.raises(DataError, match=r"spot.xyz, frame 0: atoms 2 and 4 are 0\.0000 Å apart"):
        make_graphs([frame], (8, 14), {8: 0.0, 14: 0.0}, 3.0, torch.float64)


def test_what_is_said_about_the_data(folder):
    lines = []
    dataset.load(tiny(folder, loss="stress"), lines.append)
    text = "\n".join(lines)
    for part in (
        "train: 7 frames of 9 atoms, 63 in all: 42 O, 21 Si; periodic; labels: energy, forces, stress",
        "2 kinds of configuration: soft (4), hard (3)",
        "nearest atoms 1.",
        "do not tell 2 elements apart",
    ):
        assert part in text
    assert "largest" in describe("x", read_frames([folder / "valid.xyz"], tiny(folder)), tiny(folder))[-1]


def test_isolated_energies(folder):
    frames = read_frames([folder / "train.xyz"], tiny(folder))
    extra = [(8, 8), (14, 8), (14,)]
    composed = [
        dataclasses.replace(frames[0], atomic_numbers=np.array(z), energy=sum({8: -4.5, 14: -1.25}[one] for one in z))
        for z in extra
    ]
    said = []
    fitted = baseline.isolated_energies(composed, (8, 14), tiny(folder), said.append)
    assert fitted == pytest.approx({8: -4.5, 14: -1.25}, abs=1e-12) and not said
    # One composition: E = 6 ε(O) + 3 ε(Si); the smallest solution is along (6, 3).
    fitted = baseline.isolated_energies(frames, (8, 14), tiny(folder), said.append)
    mean = np.mean([frame.energy for frame in frames])
    assert fitted == pytest.approx({8: 6 * mean / 45, 14: 3 * mean / 45}) and len(said) == 1
    given = tiny(folder, E0s={"O": -2.0, "14": -0.5})
    assert baseline.isolated_energies(frames, (8, 14), given, said.append) == {8: -2.0, 14: -0.5}
    with pytest.raises(DataError, match="`E0s` has no energy for Si"):
        baseline.isolated_energies(frames, (8, 14), tiny(folder, E0s={"O": -2.0}), said.append)


def test_what_a_model_begins_with_is_what_mace_finds(folder):
    """E0s, mean number of neighbours, scale, shift and the loss against mace-torch's own pipeline."""
    from silica_md.models import _mace  # noqa: F401  (first: it makes e3nn importable)
    from mace import data as mace_data, modules, tools  # isort: skip
    from mace.tools import torch_geometric

    from silica_md.training.loss import loss

    settings = tiny(folder, loss="stress")
    made = dataset.load(settings, lambda line: None)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        keys = mace_data.KeySpecification.from_defaults()
        _, configs = mace_data.load_from_xyz(str(folder / "train.xyz"), keys, extract_atomic_energies=False)
        table = tools.AtomicNumberTable([8, 14])
        energies = mace_data.compute_average_E0s(configs, table)
        atomic = [mace_data.AtomicData.from_config(one, table, settings.r_max) for one in configs]
        loader = torch_geometric.dataloader.DataLoader(atomic, batch_size=7, shuffle=False)
        rows = np.array([[energies[8], energies[14]]])
        mean, rms = modules.compute_mean_rms_energy_forces(loader, rows)
        neighbors = modules.compute_avg_num_neighbors(loader)
        (theirs,) = loader
        ours = collate(made.parts["train"].graphs, 2)
        assert made.energies == pytest.approx(energies)
        assert made.config.avg_num_neighbors == pytest.approx(neighbors)
        assert made.config.scale == pytest.approx(float(rms.item()))
        assert made.config.shift == pytest.approx(float(mean.item()), abs=1e-12)

        # Same predictions for both: the losses agree.
        random = torch.Generator().manual_seed(0)
        output = {
            "interaction_energy": torch.randn(7, generator=random),
            "forces": torch.randn(63, 3, generator=random),
            "stress": torch.randn(7, 3, 3, generator=random),
        }
        e0 = (theirs.node_attrs @ torch.tensor(rows[0])).view(7, 9).sum(dim=1)
        expected = modules.WeightedEnergyForcesStressLoss(1.0, 100.0, 1.0)(
            theirs, output | {"energy": output["interaction_energy"] + e0}
        )
        assert float(loss(output, ours, settings.weights(1), 7, 63)) == pytest.approx(float(expected), rel=1e-9)
    finally:
        torch.set_default_dtype(before)

    def edges(inputs):
        columns = torch.cat([inputs["edge_index"].T.double(), inputs["unit_shifts"].double()], dim=1)
        return sorted(map(tuple, columns.round().tolist()))

    assert edges(ours.inputs) == edges(theirs.to_dict())
    vectors = lambda one: (  # noqa: E731
        one["positions"][one["edge_index"][1]] - one["positions"][one["edge_index"][0]] + one["shifts"]
    )
    ours_sorted, theirs_sorted = (vectors(one).norm(dim=1).sort().values for one in (ours.inputs, theirs.to_dict()))
    torch.testing.assert_close(ours_sorted, theirs_sorted)


def test_a_batch_is_its_frames(folder):
    graphs = dataset.load(tiny(folder), lambda line: None).parts["train"].graphs
    both = collate(graphs[2:4], 2)
    for number, start in ((0, 0), (1, 9)):
        one = collate(graphs[2 + number : 3 + number], 2)
        mine = both.inputs["edge_index"][0] // 9 == number
        assert torch.equal(both.inputs["edge_index"][:, mine] - start, one.inputs["edge_index"])
        assert torch.equal(both.inputs["shifts"][mine], one.inputs["shifts"])
        assert torch.equal(both.inputs["positions"][start : start + 9], one.inputs["positions"])
    assert both.inputs["batch"].tolist() == [0] * 9 + [1] * 9 and both.inputs["ptr"].tolist() == [0, 9, 18]


def test_order_and_split():
    orders = [order(50, 3, epoch).tolist() for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50)) and orders[0] != orders[1]
    assert order(50, 3, 1).tolist() == orders[1] and order(50, 4, 1).tolist() != orders[1]
    train, valid = split(list(range(20)), 0.2, seed=5)
    assert len(valid) == 4 and sorted(train + valid) == list(range(20))
    with pytest.raises(DataError, match="cannot be split"):
        split([1], 0.5, seed=5)


def test_the_crystal_is_quartz():
    assert QUARTZ.get_chemical_formula() == "O6Si3"
