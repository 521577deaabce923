"""Plain data (of a TOML file, of JSON, of flags) checked against the fields of a dataclass; refusals name the key."""

from __future__ import annotations

import difflib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path

from .errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAMES = {
    float: "a number",
    int: "a whole number",
    str: "text in quotes",
    bool: "true or false",
    dict: "a table",
    tuple: "a list",
}


def read_toml(path: str | Path) -> dict:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        It cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def checked(kind: type, data: Mapping, where: str = "", required: tuple[str, ...] = ()) -> dict:
    """Values of the fields of the dataclass `kind`, each of the type its field asks for.

    Parameters
    ----------
    kind : type
        A dataclass whose annotations are plain types, or unions of them.
    data : mapping
        Keys are fields of `kind`.
    where : str
        What stands before the key in an error: "segment 2: ".
    required : tuple of str
        Keys that have to be there.

    Raises
    ------
    ConfigError
        A key is unknown (the nearest right one is named) or missing, or a value is of the wrong kind.
    """
    types_of = typing.get_type_hints(kind)
    for key in data:
        if key not in types_of:
            near = difflib.get_close_matches(key, types_of, n=1, cutoff=0.5)
            hint = f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(types_of)}"
            raise ConfigError(f"{where}unknown key `{key}`{hint}")
    for key in required:
        if key not in data:
            raise ConfigError(f"{where}the key `{key}` is missing")
    return {key: _converted(types_of[key], value, where + f"`{key}`") for key, value in data.items()}


def _converted(wanted, value, what: str):
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    if value is None and type(None) in options:
        return None
    plain = [typing.get_origin(option) or option for option in options if option is not type(None)]
    for option in plain:
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if option is tuple and isinstance(value, (list, tuple)):
            return tuple(value)
        if isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return value
    raise ConfigError(f"{what} must be {' or '.join(_NAMES[option] for option in plain)}, got {value!r}")
