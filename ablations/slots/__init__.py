"""Slots: the places in a model where a function is called, what they can hold, and the arms that put it there."""
