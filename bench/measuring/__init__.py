"""Measuring: implementations take turns in fresh processes, each checked before it is timed."""
