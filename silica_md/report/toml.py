"""Writes a configuration as TOML, the form `silica-md quench --config` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping


def as_toml(config: Mapping) -> str:
    """Return plain data as TOML; None and empty tables are left out, as they stand for defaults.

    Parameters
    ----------
    config : mapping
        Numbers, text, booleans, lists of them, mappings (tables) and lists of mappings (arrays of tables).

    Returns
    -------
    str
    """
    lines, tables = [], []
    for name, item in config.items():
        if isinstance(item, Mapping):
            tables += ["", f"[{name}]", as_toml(item)] if item else []
        elif isinstance(item, list | tuple) and item and all(isinstance(row, Mapping) for row in item):
            tables += [line for row in item for line in ("", f"[[{name}]]", as_toml(row))]
        elif item is not None and item != []:
            lines.append(f"{name} = {json.dumps(item, ensure_ascii=False)}")
    return "\n".join(lines + tables)
