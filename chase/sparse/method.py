"""Method: the settings of one sparse training. What they plan is in `plan`, the named ones are in `methods`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chase import schedules
from chase.errors import RecipeError
from chase.registry import Registry
from chase.settings import check_finite
from chase.slimming.operators.rule import Freedoms
from chase.slimming.widths import check_grid
from chase.sparse.allocation import ALLOCATIONS
from chase.sparse.channels import AGGREGATES, NORMALISERS
from chase.sparse.criteria import CHANNEL_SCORES
from chase.sparse.distributions import DISTRIBUTIONS
from chase.sparse.saliency import INITIAL
from chase.sparse.scores import SCORES

SCOPES = ("global", "layer")
RANDOM = "random"
DECAYS: Registry[Callable[[float], float]] = Registry(
    "decay",
    {
        "cosine": schedules.cosine,
        "linear": schedules.linear,
        "steps": schedules.thirds,
        "constant": schedules.constant,
    },
)


@dataclass(frozen=True, kw_only=True)
class Method:
    """Settings of one sparse-training method; steps are optimizer steps. The defaults are Chase's (paper §3).

    Weights:
    sparsity: s_p in [0, 1), over the conv and linear weights of the dense model.
    initial: what chooses the first weights: "random" by `distribution`, or a saliency: snip, grasp, synflow, magnitude.
    distribution: how random initial weights spread over layers (erk, er, uniform).
    initial_sparsity: sparsity at the start, in [0, 1); it rises to `sparsity` at τ_stop along Eq. 3 (paper Fig. 5,
        GraNet). None is `sparsity` from the start.
    prune, grow: scores of single weights (magnitude, gradient, magnitude+gradient, random).
    scope: "global" prunes the lowest of all weights (paper "global parameter exploration"); "layer" the same share of
        each layer.
    allocation: which layers grow: "global" lets all compete, "layer" restores what each had, "survivors" in proportion
        to what each kept (DSR), "momentum" to the mean gradient of its living weights (SNFS).
    gradient_momentum: β in [0, 1) of an exponential average of dense gradients, which growth then looks at (SNFS);
        0 is the gradient of the event's own batch. Above 0 every step makes dense gradients.
    soft_bound: s_e, the extra density that is grown first and pruned ΔT_p later (paper "soft memory bound"). Where
        it is 0, `drop_fraction` of the weights is pruned and regrown in the same event instead (RigL).
    decay: how soft_bound or drop_fraction falls until τ_stop. The paper's text has no decay; its training FLOPs
        (Table 4) and its code have "cosine", so that is the default; "constant" is the text.
    update_every: ΔT_p, steps between parameter events; 0 for static masks. None spreads 50 events over τ_stop, about
        what the paper's runs have.
    rewire_l1: α of Deep-R, which drops and grows single weights after every step; 0 turns it off.
    stop: τ_stop as a fraction of all steps: channels are gone and exploration ends.
    explore_after_stop: keep on dropping and regrowing until the end (the reference does, the paper does not).
    late_drop: where the cosine of exploration after τ_stop starts, at step 0; it ends at 0.005 (both the reference's).

    Channels:
    channel_sparsity: S_c in [0, 1), over the prunable channels; 0 removes none.
    executed_macs: in place of channel_sparsity, the share in (0, 1] of the dense model's MACs that is still executed
        at τ_stop. None removes no channels for it.
    channel_start: t_0 of Eq. 3 as a fraction of all steps, at most `stop`; equal to it, all channels leave at once.
    channel_every: ΔT, steps between channel events. `channel_offset` moves them ahead by so many steps (the
        reference has ΔT_p / 2). None is 50 events.
    criterion: channel score, lowest first (see `chase.sparse.criteria`; paper Table 1 and 2).
    aggregate: how the scores of the rows that make one coupled channel become its score (mean, sum, max).
    normalise: what scores are divided by before groups are compared: "none" as in the paper, "layer" the group's
        mean, "macs" the MACs that one channel of the group executes.
    channel_scope: "global" ranks the channels of all groups together; "layer" takes the same share of each.
    channel_regrowth: the share of the removed channels that returns for another try at each channel event, in [0, 1),
        falling to 0 at τ_stop; chosen at random, with the weights they had (after CHEX).
    min_channel_ratio: β: each layer keeps at least ⌊(1 − S_c) · β · width⌋ channels.
    round_to: the width grid that channel events keep to, one number or one for each pattern of layer names; 1 for none.
    prune_skip: let channels on skip connections leave, whole groups together.
    prune_norms: let channels leave that run through a LayerNorm (see `chase.slimming.Freedoms`).
    prune_heads: let whole attention heads leave, where the module allows it.
    keep: patterns of layer names whose channels stay.
    """

    name: str = "chase"
    sparsity: float = 0.9
    initial: str = RANDOM
    distribution: str = "erk"
    initial_sparsity: float | None = None
    prune: str = "magnitude"
    grow: str = "gradient"
    scope: str = "global"
    allocation: str = "global"
    gradient_momentum: float = 0.0
    soft_bound: float = 0.05
    drop_fraction: float = 0.3
    decay: str = "cosine"
    update_every: int | None = None
    rewire_l1: float = 0.0
    stop: float = 0.8
    explore_after_stop: bool = False
    late_drop: float = 0.5
    channel_sparsity: float = 0.0
    executed_macs: float | None = None
    channel_start: float = 0.0
    channel_every: int | None = None
    channel_offset: int = 0
    criterion: str = "umm"
    aggregate: str = "mean"
    normalise: str = "none"
    channel_scope: str = "global"
    channel_regrowth: float = 0.0
    min_channel_ratio: float = 0.2
    round_to: int | Mapping[str, int] = 8
    prune_skip: bool = False
    prune_norms: bool = False
    prune_heads: bool = False
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_finite("method", vars(self))
        self._check_numbers()
        self._check_names()
        self._check_together()

    def _check_numbers(self) -> None:
        for name in ("sparsity", "channel_sparsity", "gradient_momentum", "channel_regrowth"):
            self._require(0 <= getattr(self, name) < 1, name, "[0, 1)")
        for name in ("soft_bound", "drop_fraction", "late_drop", "min_channel_ratio"):
            self._require(0 <= getattr(self, name) <= 1, name, "[0, 1]")
        initial, executed = self.initial_sparsity, self.executed_macs
        self._require(initial is None or 0 <= initial < 1, "initial_sparsity", "[0, 1)")
        self._require(executed is None or 0 < executed <= 1, "executed_macs", "(0, 1]")
        self._require(0 < self.stop <= 1, "stop", "(0, 1]")
        self._require(0 <= self.channel_start <= self.stop, "channel_start", f"[0, stop = {self.stop}]")
        self._require((self.update_every or 0) >= 0, "update_every", "[0, ∞)")
        self._require(self.rewire_l1 >= 0, "rewire_l1", "[0, ∞)")
        self._require(self.channel_offset >= 0, "channel_offset", "[0, ∞)")
        self._require(self.channel_every is None or self.channel_every >= 1, "channel_every", "[1, ∞)")
        check_grid(self.round_to)

    def _check_names(self) -> None:
        for name in ("scope", "channel_scope"):
            self._require(getattr(self, name) in SCOPES, name, f"{{{', '.join(SCOPES)}}}")
        tables: tuple[tuple[Registry[Any], str], ...] = (
            (DISTRIBUTIONS, self.distribution),
            (CHANNEL_SCORES, self.criterion),
            (AGGREGATES, self.aggregate),
            (NORMALISERS, self.normalise),
            (SCORES, self.prune),
            (SCORES, self.grow),
            (ALLOCATIONS, self.allocation),
            (DECAYS, self.decay),
        )
        for table, value in tables:
            table[value]  # an unknown name explains itself
        if self.initial != RANDOM:
            INITIAL[self.initial]

    def _check_together(self) -> None:
        if self.name == "dense" and (self.sparsity or self.prunes_channels):
            raise RecipeError("method.sparsity and method.channel_sparsity must be 0 for the method 'dense'")
        if self.channel_sparsity and self.executed_macs is not None:
            raise RecipeError("method.channel_sparsity and method.executed_macs name two targets; leave one out")
        if self.allocation == "momentum" and not self.gradient_momentum:
            raise RecipeError("method.allocation momentum needs method.gradient_momentum above 0, such as 0.9")
        if self.initial_sparsity not in (None, self.sparsity) and self.update_every == 0:
            raise RecipeError("method.initial_sparsity changes at parameter events; method.update_every must not be 0")

    def _require(self, holds: bool, name: str, interval: str) -> None:
        if not holds:
            raise RecipeError(f"method.{name} must lie in {interval}, not {getattr(self, name)}")

    @property
    def density(self) -> float:
        """1 − sparsity, at the end."""
        return 1 - self.sparsity

    @property
    def initial_density(self) -> float:
        """1 − sparsity, at the start."""
        return self.density if self.initial_sparsity is None else 1 - self.initial_sparsity

    @property
    def prunes_channels(self) -> bool:
        """Whether channels leave."""
        return self.channel_sparsity > 0 or self.executed_macs is not None

    @property
    def masks_weights(self) -> bool:
        """Whether single weights are masked at any time."""
        return self.sparsity > 0 or self.initial_density < 1

    @property
    def freedoms(self) -> Freedoms:
        """What may leave beyond plain channels."""
        return Freedoms(norms=self.prune_norms, heads=self.prune_heads)

    def with_(self, **settings: Any) -> Method:
        """The same method with other settings."""
        return replace(self, **settings)
