"""Foundation models of MACE, by name or path. Their download is mace-torch's own; nothing else here has one."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from ..errors import PublishedModelError


def locate(model: str | Path) -> Path:
    """Return the file of a foundation model.

    Parameters
    ----------
    model : str or Path
        A file, or a name that ``mace.calculators.mace_mp`` knows, such as "small", "medium", "medium-mpa-0"; a name is
        looked up in mace-torch's cache first, and downloaded by mace-torch where it is not there. What mace-torch says
        about licences goes to the standard error.

    Raises
    ------
    PublishedModelError
        There is no such file or name, or the download failed.
    """
    if Path(model).is_file():
        return Path(model)
    from . import _mace  # noqa: F401  (the one door: leaves the process as it was)

    with contextlib.redirect_stdout(sys.stderr):
        from mace.calculators.foundations_models import download_mace_mp_checkpoint, mace_mp_urls

        if str(model) not in mace_mp_urls:
            raise PublishedModelError(
                f"there is no file {model}, nor a model of that name; names are {', '.join(mace_mp_urls)}"
            )
        try:
            return Path(download_mace_mp_checkpoint(str(model)))
        except (OSError, RuntimeError) as error:
            raise PublishedModelError(f"mace-torch could not download {model!r}: {error}") from error
