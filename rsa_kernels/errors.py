"""Errors that the data of a run can cause, as opposed to wrong arguments (ValueError, TypeError)."""


class RsaKernelsError(RuntimeError):
    """Base of every error in this file."""


class NativeLibraryError(RsaKernelsError):
    """The compiled library is missing or does not load; the message names the op and the mend."""


class BackendUnavailableError(RsaKernelsError):
    """No kernel of an op runs on the device asked for; the message names op, device and install line."""


class DerivativeNotProvidedError(NotImplementedError):
    """A derivative of an order the op does not provide was asked for (it is never silently zero)."""


class NonFiniteError(RsaKernelsError):
    """Positions or results are NaN or infinite."""


class LostNeighborError(RsaKernelsError):
    """Atoms had moved farther than a neighbour list allows for; what was computed from it may lack pairs."""


class AtomsTooCloseError(RsaKernelsError):
    """A pair is closer than the shortest distance its potential is defined for."""


class CapacityError(RsaKernelsError):
    """A request needs more memory or more indices than there are."""
