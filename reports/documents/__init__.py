"""Documents: figures between marks in Markdown files, filled from published results."""
