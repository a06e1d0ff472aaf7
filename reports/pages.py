"""The pages' templates, and writing a page in one step."""

from pathlib import Path

import jinja2

from trans4init.reports import formats

__all__ = ["templates", "write_page"]


def templates() -> jinja2.Environment:
    """The templates of this folder; HTML is escaped, an unknown name is an error."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = ("count", "interval", "limits", "number", "signed", "value", "words")
    pages.filters |= {name: getattr(formats, name) for name in filters}
    return pages


def write_page(path: Path, text: str) -> Path:
    """Write the page under its name when it is whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
