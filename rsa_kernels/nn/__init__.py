"""Long-range layers on `rsa_kernels.reciprocal` for any potential: attention (RSA, RSGA), energies (SOG-Net, LES)."""

from .latent_ewald import LatentEwald
from .rsa import ReciprocalSpaceAttention
from .rsga import GatedUpdate, ReciprocalSpaceGatedAttention
from .sum_of_gaussians import SumOfGaussians
from .waves import batch_pointers

__all__ = [
    "GatedUpdate",
    "LatentEwald",
    "ReciprocalSpaceAttention",
    "ReciprocalSpaceGatedAttention",
    "SumOfGaussians",
    "batch_pointers",
]
