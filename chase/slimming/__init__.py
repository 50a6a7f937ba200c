"""Slimming: which channels belong together, cutting dead ones out, and proving that the function is the same."""

from chase.slimming.groups import Group, Slice, channel_groups, prunable
from chase.slimming.network import Slimmed, slim, slimmed

__all__ = ["Group", "Slice", "Slimmed", "channel_groups", "prunable", "slim", "slimmed"]
