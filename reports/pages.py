"""Load the templates of the HTML and Markdown pages."""

from pathlib import Path

import jinja2

from trans4init.reports import formats

__all__ = ["templates"]


def templates() -> jinja2.Environment:
    """Return the environment of the templates folder: it escapes HTML, and a name that is not defined is an error."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {name: getattr(formats, name) for name in formats.__all__}
    return pages
