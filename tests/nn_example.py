"""A plain message-passing network, and how a long-range layer goes into it; what is marked stands in a README."""

import torch

import rsa_kernels as rk


class MessagePassing(torch.nn.Module):
    """A short-range potential: embedding, two rounds of messages between neighbours, an energy read out per atom."""

    def __init__(self, width: int = 16, cutoff: float = 4.0):
        super().__init__()
        self.cutoff = cutoff
        self.embedding = torch.nn.Embedding(2, width)
        self.messages = torch.nn.ModuleList(torch.nn.Linear(width + 8, width) for _ in range(2))
        self.readout = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.SiLU(), torch.nn.Linear(width, 1))

    def features(self, species, positions, cell, batch):
        """Invariant features of every atom, (n_atoms, width)."""
        pairs = rk.neighbor_list(positions.detach(), cell.detach(), True, self.cutoff, rk.nn.batch_pointers(batch))
        center, neighbor = pairs.edge_index
        h = self.embedding(species)
        distances = pairs.distances(positions, cell).to(h.dtype).unsqueeze(1) / self.cutoff
        fade = torch.cos(0.5 * torch.pi * distances) ** 4
        radial = torch.sin(torch.pi * distances * torch.arange(1, 9)) / distances
        for message in self.messages:
            sent = fade * message(torch.cat([h[neighbor], radial], dim=1))
            h = h + torch.nn.functional.silu(torch.zeros_like(h).index_add(0, center, sent))
        return h

    def forward(self, species, positions, cell, batch):
        """Energy of every system, (n_systems,)."""
        h = self.features(species, positions, cell, batch)
        return h.new_zeros(len(cell)).index_add(0, batch, self.readout(h)[:, 0])


# [attention]
class WithAttention(MessagePassing):
    """The features of every atom meet those of all others before they are read out."""

    def __init__(self, width: int = 16):
        super().__init__(width)
        self.long_range = rk.nn.ReciprocalSpaceGatedAttention(width, heads=4, k_cut=3.0, sigma=1.0)

    def features(self, species, positions, cell, batch):
        h = super().features(species, positions, cell, batch)
        update, mix_gate = self.long_range(h, positions, cell, rk.nn.batch_pointers(batch, len(cell)))
        return h + mix_gate * update


def energy_forces_stress(model, species, positions, cell, batch):
    strain = torch.zeros_like(cell, requires_grad=True)
    deformation = torch.eye(3, dtype=cell.dtype) + strain
    positions = positions.detach().requires_grad_()
    strained = (positions.unsqueeze(1) @ deformation[batch]).squeeze(1)
    energy = model(species, strained, cell @ deformation, batch)
    gradient, virial = torch.autograd.grad(energy.sum(), (positions, strain), create_graph=model.training)
    return energy, -gradient, 0.5 * (virial + virial.mT) / torch.linalg.det(cell).abs().view(-1, 1, 1)


# [/attention]


class WithPlainAttention(MessagePassing):
    """The same with the ungated layer."""

    def __init__(self, width: int = 16):
        super().__init__(width)
        self.long_range = rk.nn.ReciprocalSpaceAttention(width, heads=4, k_cut=3.0, sigma=1.0)

    def features(self, species, positions, cell, batch):
        h = super().features(species, positions, cell, batch)
        return h + self.long_range(h, positions, cell, rk.nn.batch_pointers(batch, len(cell)))


# [charges]
class WithCharges(MessagePassing):
    """Latent charges are read from the features, and their energy is added."""

    def __init__(self, long_range: torch.nn.Module, width: int = 16):
        super().__init__(width)
        self.charges = torch.nn.Linear(width, 4, bias=False)
        self.long_range = long_range  # rk.nn.LatentEwald(sigma=1.0) or rk.nn.SumOfGaussians(k_cut=3.0)

    def forward(self, species, positions, cell, batch):
        h = self.features(species, positions, cell, batch)
        energy = h.new_zeros(len(cell)).index_add(0, batch, self.readout(h)[:, 0])
        return energy + self.long_range(self.charges(h), positions, cell, rk.nn.batch_pointers(batch, len(cell)))


# [/charges]
