"""What can go wrong with a run; wrong arguments are ValueError, kernels have rsa_kernels.errors."""


class SilicaError(RuntimeError):
    """Base of the errors below; the command line prints them in one line, without a traceback."""


class ConfigError(SilicaError):
    """A configuration file or flag is unknown, of the wrong kind, or contradicts another."""


class RunExistsError(SilicaError):
    """The run folder is taken; it is never overwritten."""


class CheckpointError(SilicaError):
    """No checkpoint can be read, or none can be written."""


class DamagedCheckpointError(CheckpointError):
    """What is in the file is not what was written."""


class ModelFileError(SilicaError):
    """A file of a learned potential is missing, damaged, or not what it says it is."""


class RunAborted(SilicaError):
    """The run cannot go on; the message says why and names the last good checkpoint."""


class DataError(SilicaError):
    """A set of labelled frames cannot be used: a label is missing, or contradicts the settings."""


class PublishedModelError(SilicaError):
    """A model file of others cannot be read, or is of a kind that cannot be converted."""


class RefusedPickleError(PublishedModelError):
    """A pickled file asks for something that no model needs; none of it was executed."""
