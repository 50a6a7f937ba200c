"""Slimming: channel groups, surgery, and the proof that nothing else changed."""

from chase.slimming.followers import FOLLOWERS
from chase.slimming.groups import Group, Slice, prunable
from chase.slimming.live import compact
from chase.slimming.modules import MODULE_RULES, ModuleCall
from chase.slimming.network import Slimmed, slim, slimmed
from chase.slimming.operators import RULES
from chase.slimming.operators.rule import Freedoms
from chase.slimming.tracer import channel_groups

__all__ = [
    "FOLLOWERS",
    "Freedoms",
    "MODULE_RULES",
    "RULES",
    "Group",
    "ModuleCall",
    "Slice",
    "Slimmed",
    "channel_groups",
    "compact",
    "prunable",
    "slim",
    "slimmed",
]
