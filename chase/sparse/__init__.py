"""Sparse training: `Sparsifier` keeps a model sparse under any training loop; a `Method` says how."""

from chase.sparse.amenable import Amenable
from chase.sparse.masks import Masks, maskable
from chase.sparse.method import Method
from chase.sparse.methods import METHODS, SET, Chase, RigL, make
from chase.sparse.oneshot import one_shot
from chase.sparse.plan import Event, plan
from chase.sparse.saliency import Batch
from chase.sparse.sparsifier import Sparsifier

__all__ = [
    "METHODS",
    "SET",
    "Amenable",
    "Batch",
    "Chase",
    "Event",
    "Masks",
    "Method",
    "RigL",
    "Sparsifier",
    "make",
    "maskable",
    "one_shot",
    "plan",
]
