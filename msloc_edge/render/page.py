"""A page of tables and pictures: one HTML file that opens anywhere, offline, and can load or run nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib import resources
from typing import Any

_POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"


def page(title: str, subtitle: str, sections: Iterable[str], css: str = "") -> str:
    """The page, from sections of HTML. `css` is added to the style that the reports share."""
    style = "".join(
        (resources.files("msloc_edge.render") / name).read_text(encoding="utf-8") for name in ("report.css", "page.css")
    )
    style += css
    policy = _POLICY.format(b64encode(sha256(style.encode()).digest()).decode())
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>",
            f'<header><div class="brand"><h1>{text(title)}</h1><p>{text(subtitle)}</p></div></header>\n<main>',
            *sections,
            "</main>\n<footer><p>Research use, not a diagnosis</p></footer>\n</body>\n</html>\n",
        ]
    )


def section(title: str, note: str, content: str) -> str:
    """A heading, a sentence below it (or none), and HTML."""
    words = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<section><h2>{text(title)}</h2>{words}{content}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    titles = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, Any]) -> str:
    """Names and values of any JSON kind."""
    rows = "".join(
        f"<div><dt>{text(key.replace('_', ' '))}</dt><dd>{_value(value)}</dd></div>" for key, value in values.items()
    )
    return f"<dl>{rows}</dl>"


def text(value: Any) -> str:
    """Text that can be no markup; a file name may hold bytes that are no characters."""
    return escape(str(value).encode("utf-8", "replace").decode())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{text(key)}: {_value(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        lines = any(len(str(item)) > 40 for item in value)  # sentences, such as problems, or names
        return ("<br>" if lines else ", ").join(_value(item) for item in value) or "none"
    return text(f"{value:g}" if isinstance(value, float) else value)
