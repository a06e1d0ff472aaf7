"""Measure a case: its implementations take turns in a fresh process, and each is checked before it is timed."""
