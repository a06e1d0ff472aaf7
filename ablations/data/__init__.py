"""Data of the tasks: their settings, sources and splits. Imports no torch, so that studies are checked without it."""
