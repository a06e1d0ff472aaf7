"""The templates of the pages."""

from pathlib import Path

import jinja2

from trans4init.reports import formats

__all__ = ["templates"]


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
