"""Slots: the places in a model where a function is called, what they hold, and the guard over what is frozen."""

from trans4init.ablations.slots.slot import Slot, slots_named

__all__ = ["Slot", "slots_named"]
