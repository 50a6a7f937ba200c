"""Sparse training: `Sparsifier` keeps a model sparse under any training loop; a `Method` says how."""

from chase.sparse.masks import Masks, maskable
from chase.sparse.methods import METHODS, SET, Chase, Event, Method, RigL, make, plan
from chase.sparse.sparsifier import Sparsifier

__all__ = [
    "METHODS",
    "SET",
    "Chase",
    "Event",
    "Masks",
    "Method",
    "RigL",
    "Sparsifier",
    "make",
    "maskable",
    "plan",
]
