"""Pieces of HTML: figures with their image inside, tables, cards; every text from outside is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from html import escape


def figure(png: bytes, title: str, caption: str) -> str:
    """Return a figure whose PNG stands in the page itself; `caption` is HTML."""
    width, height = (int.from_bytes(png[k : k + 4], "big") for k in (16, 20))  # from the PNG's own header
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(title)}"><figcaption><b>{escape(title)}.</b> {caption}</figcaption></figure>'
    )


def section(title: str, *parts: str) -> str:
    """Return a section with a heading; `parts` are HTML, empty ones are dropped."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(filter(None, parts)) + "\n</section>"


def group(kind: str, items: Iterable[str]) -> str:
    """Return a box of class `kind` around pieces of HTML."""
    items = "\n".join(items)
    return f'<div class="{kind}">\n{items}\n</div>'


def card(title: str, content: str) -> str:
    """Return a framed piece of HTML with a title."""
    return f'<div class="card"><h3>{escape(title)}</h3>{content}</div>'


def bullets(lines: Iterable[str]) -> str:
    """Return a list of plain texts."""
    return '<ul class="plain">' + "".join(f"<li>{symbols(line)}</li>" for line in lines) + "</ul>"


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of two columns, name and value."""
    body = "".join(f'<tr><th scope="row">{breakable(name)}</th><td>{plain(x)}</td></tr>' for name, x in rows)
    return f'<table class="facts"><tbody>{body}</tbody></table>'


def records(rows: list[dict]) -> str:
    """Return a table of dictionaries, one per row, columns in order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(_heading(name))}</th>" for name in columns)
    cells = ("".join(f"<td>{plain(row.get(name))}</td>" for name in columns) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def shares(title: str, note: str, rows: list[tuple[str, float, float | None]]) -> str:
    """Return a card with shares in percent, each with a bar, beside measured ones where there are any.

    `rows` are (name, simulated, measured or None), shares as fractions of 1; `note` is HTML.
    """
    compared = any(found is not None for _, _, found in rows)
    head = '<th></th><th class="number">simulated</th>' + ('<th class="number">measured</th>' if compared else "")
    lines = []
    for name, share, found in rows:
        beside = f'<td class="number">{percent(found)}</td>' if compared else ""
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="number">{percent(share)}</td>{beside}'
            f'<td class="bar"><span style="width:{100 * share:.1f}%"></span></td></tr>'
        )
    table = f"<table><thead><tr>{head}<th></th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return card(title, f'{table}<p class="note">{note}</p>')


def percent(share: float | None) -> str:
    """Write a share as percent, a dash for none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def spread(text: str) -> str:
    """Escape a value, and set smaller what stands in brackets behind it."""
    match = re.fullmatch(r"(.*?) (\(.*\))", text)
    return f'{escape(match[1])} <span class="sigma">{escape(match[2])}</span>' if match else escape(text)


def symbols(text: str) -> str:
    """Escape a text and set R_χ with a subscript."""
    return escape(text).replace("R_χ", "<i>R</i><sub>χ</sub>")


def breakable(name: object) -> str:
    """Escape a name, and let lines break after its underscores and dots."""
    return re.sub(r"([_.])", r"\1<wbr>", escape(str(name)))


def plain(item: object) -> str:
    """Write a configuration value for people, escaped."""
    if item is None or item == "":
        return "–"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, list | tuple):
        return ", ".join(plain(x) for x in item) or "–"
    return escape(f"{item:g}" if isinstance(item, float) else f"{item:,}" if isinstance(item, int) else str(item))


def _heading(name):
    """A key as a column heading: "duration_ps" becomes "duration (ps)"."""
    return re.sub(r"_(K|ps|fs|GPa)$", r" (\1)", name).replace("_", " ")
