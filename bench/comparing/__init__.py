"""Comparing: two revisions or two sets of results, and which cases became slower."""
