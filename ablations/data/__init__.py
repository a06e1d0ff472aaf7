"""Data: where it comes from and how it is split. Imports no torch, so that a study can be checked without it."""
