"""Fill the tables and verdicts in Markdown documents from published results."""
