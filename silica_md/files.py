"""Files that survive a kill: whole files replaced in one step, and growing files cut back to a known
length."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["AppendFile", "replace_file"]


def replace_file(path: str | Path, data: bytes | str) -> Path:
    """Write `data` to `path` so that a reader finds the old file or the new one, never a part.

    The bytes go to a temporary file beside `path`, are synced to the disk, and the file is renamed over
    `path`.

    Parameters
    ----------
    path : str or Path
        Destination; its folder must exist.
    data : bytes or str
        Content; text is encoded as UTF-8.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OSError
        The folder is missing, or the disk is full; `path` is then as it was, and the temporary file is gone.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return path


class AppendFile:
    """A file that grows record by record and can be cut back to the length a checkpoint remembers.

    A record becomes valid in two steps: its bytes are appended, then a small *mark* (a frame count,
    say) is overwritten in place. A kill between the two leaves bytes that no reader counts and `cut`
    removes. The first record is written with `replace_file`, so the file never exists without a
    complete record in it.

    Parameters
    ----------
    path : str or Path
        Nothing is touched until the first `append` or `cut`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.size = 0
        self._descriptor = None

    def append(self, data: bytes, mark: tuple[int, bytes] | None = None) -> None:
        """Append `data` (bytes), then overwrite with `mark` = (offset in the file, bytes), if given.

        Raises
        ------
        FileExistsError
            This is the first record and the file is already there: nothing is overwritten silently.
        OSError
            The disk is full, for instance; the file is cut back to its last complete record first.
        """
        if self._descriptor is None:
            self._create(data, mark)
        else:
            try:
                _write_all(self._descriptor, data, self.size)
                if mark is not None:
                    _write_all(self._descriptor, mark[1], mark[0])
            except OSError:
                os.ftruncate(self._descriptor, self.size)
                raise
        self.size += len(data)

    def sync(self) -> None:
        """Force what was appended to the disk, so that a checkpoint never remembers bytes a crash could
        lose."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def cut(self, size: int, mark: tuple[int, bytes] | None = None) -> None:
        """Drop everything after the first `size` bytes; `mark` as in `append`, written before the cut.

        Raises
        ------
        ValueError
            `size` is negative, or the file is missing or shorter than `size`.
        """
        if size < 0:
            raise ValueError(f"`size` must not be negative, got {size}")
        self.close()
        if size == 0:
            self.path.unlink(missing_ok=True)
            self.size = 0
            return
        held = self.path.stat().st_size if self.path.exists() else 0
        if held < size:
            raise ValueError(
                f"{self.path} holds {held} bytes, but held {size} when the checkpoint was "
                "written: it was removed or changed since; put it back, or start a new run"
            )
        self._descriptor = os.open(self.path, os.O_RDWR)
        if mark is not None:
            _write_all(self._descriptor, mark[1], mark[0])
        os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self) -> None:
        """Sync and close; a later `append` needs a `cut` first."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _create(self, data, mark):
        if self.path.exists():
            raise FileExistsError(
                f"{self.path} is already there and is not overwritten: resume that run, or choose another folder"
            )
        if mark is not None:
            offset, value = mark
            data = data[:offset] + value + data[offset + len(value) :]
        replace_file(self.path, data)
        self._descriptor = os.open(self.path, os.O_RDWR)
        self.size = 0


def _write_all(descriptor, data, offset):
    """Write `data` at `offset` however often the system stops short."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(folder):
    """Make a rename in `folder` permanent."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
