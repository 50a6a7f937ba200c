"""Methods of sparse training, as settings over the same parts.

A method says how many weights and channels live at each step of a run (`plan`), by which scores they are chosen, and
where. RigL is Chase without channels, with drop-then-grow instead of a soft memory bound, layer by layer; SET is RigL
that grows at random; a static method is one without events. So there is one class, and each name is a set of defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from chase import schedules
from chase.errors import RecipeError
from chase.registry import Registry, did_you_mean
from chase.slimming.operators.rule import Freedoms
from chase.slimming.widths import check_grid
from chase.sparse.channels import AGGREGATES, CHANNEL_SCORES
from chase.sparse.distributions import DISTRIBUTIONS
from chase.sparse.scores import SCORES

SCOPES = ("global", "layer")
LATE_FLOOR = 0.005
DECAYS: Registry[Callable[[float], float]] = Registry(
    "decay", {"cosine": schedules.cosine, "constant": schedules.constant}
)


@dataclass(frozen=True, kw_only=True)
class Method:
    """Settings of one sparse-training method; steps are optimizer steps. The defaults are Chase's (paper §3).

    sparsity: s_p in [0, 1), over the conv and linear weights of the dense model.
    channel_sparsity: S_c in [0, 1), over the prunable channels; 0 removes none.
    distribution: how the initial weights spread over layers (erk, er, uniform).
    criterion: channel score (umm, ws, mmm), lowest first (paper Table 1).
    aggregate: how the scores of the rows that make one coupled channel become its score (mean, sum, max).
    prune, grow: scores of single weights (magnitude, gradient, random).
    scope: "global" ranks all weights together (paper "global parameter exploration"); "layer" keeps layer counts.
    soft_bound: s_e, the extra density that is grown first and pruned ΔT_p later (paper "soft memory bound"). Where
        it is 0, `drop_fraction` of the weights is pruned and regrown in the same event instead (RigL).
    decay: how soft_bound or drop_fraction falls until τ_stop. The paper's text has no decay; its training FLOPs
        (Table 4) and its code have "cosine", so that is the default; "constant" is the text.
    update_every: ΔT_p, steps between parameter events; 0 for static masks. None spreads 50 events over τ_stop, about
        what the paper's runs have.
    channel_every: ΔT, steps between channel events, likewise. `channel_offset` moves them ahead by so many steps (the
        reference has ΔT_p / 2).
    stop: τ_stop as a fraction of all steps: channels are gone and exploration ends.
    explore_after_stop: keep on dropping and regrowing until the end (the reference does, the paper does not).
    late_drop: where the cosine of exploration after τ_stop starts, at step 0; it ends at 0.005 (both the reference's).
    min_channel_ratio: β: each layer keeps at least ⌊(1 − S_c) · β · width⌋ channels.
    round_to: the width grid that channel events keep to, one number or one for each pattern of layer names; 1 for none.
    prune_skip: let channels on skip connections leave, whole groups together.
    prune_norms: let channels leave that run through a LayerNorm (see `chase.slimming.Freedoms`).
    prune_heads: let whole attention heads leave, where the module allows it.
    keep: patterns of layer names whose channels stay.
    """

    name: str = "chase"
    sparsity: float = 0.9
    channel_sparsity: float = 0.0
    distribution: str = "erk"
    criterion: str = "umm"
    aggregate: str = "mean"
    prune: str = "magnitude"
    grow: str = "gradient"
    scope: str = "global"
    soft_bound: float = 0.05
    drop_fraction: float = 0.3
    decay: str = "cosine"
    update_every: int | None = None
    channel_every: int | None = None
    channel_offset: int = 0
    stop: float = 0.8
    explore_after_stop: bool = False
    late_drop: float = 0.5
    min_channel_ratio: float = 0.2
    round_to: int | Mapping[str, int] = 8
    prune_skip: bool = False
    prune_norms: bool = False
    prune_heads: bool = False
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("sparsity", "channel_sparsity"):
            self._require(0 <= getattr(self, name) < 1, name, "[0, 1)")
        for name in ("soft_bound", "drop_fraction", "late_drop", "min_channel_ratio"):
            self._require(0 <= getattr(self, name) <= 1, name, "[0, 1]")
        self._require(0 < self.stop <= 1, "stop", "(0, 1]")
        self._require((self.update_every or 0) >= 0, "update_every", "[0, ∞)")
        self._require(self.channel_offset >= 0, "channel_offset", "[0, ∞)")
        self._require(self.channel_every is None or self.channel_every >= 1, "channel_every", "[1, ∞)")
        check_grid(self.round_to)
        self._require(self.scope in SCOPES, "scope", f"{{{', '.join(SCOPES)}}}")
        for table, value in (
            (DISTRIBUTIONS, self.distribution),
            (CHANNEL_SCORES, self.criterion),
            (AGGREGATES, self.aggregate),
            (SCORES, self.prune),
            (SCORES, self.grow),
            (DECAYS, self.decay),
        ):
            table[value]  # an unknown name explains itself

        if self.name == "dense" and (self.sparsity or self.channel_sparsity):
            raise RecipeError("method.sparsity and method.channel_sparsity must be 0 for the method 'dense'")

    def _require(self, holds: bool, name: str, interval: str) -> None:
        if not holds:
            raise RecipeError(f"method.{name} must lie in {interval}, not {getattr(self, name)}")

    @property
    def density(self) -> float:
        """1 − sparsity."""
        return 1 - self.sparsity

    @property
    def freedoms(self) -> Freedoms:
        """What may leave beyond plain channels."""
        return Freedoms(norms=self.prune_norms, heads=self.prune_heads)

    def with_(self, **settings: Any) -> Method:
        """The same method with other settings."""
        return replace(self, **settings)


@dataclass(frozen=True)
class Event:
    """What happens after optimizer step `step` (the first is 1), in this order.

    Channels are removed until `channel_sparsity` is reached (None: none are); weights are pruned down to density
    `keep` and grown up to density `density`, both of the dense model (None: weights stay).
    """

    step: int
    channel_sparsity: float | None = None
    keep: float | None = None
    density: float | None = None


def stop_step(method: Method, steps: int) -> int:
    """τ_stop in steps."""
    return max(1, round(method.stop * steps))


def plan(method: Method, steps: int) -> tuple[Event, ...]:
    """Every event of a run of `steps` optimizer steps, in order (paper Algorithm 1).

    The last channel event and the return to the exact budget fall on τ_stop, whatever the frequencies.
    """
    stop = stop_step(method, steps)
    channels = _channel_events(method, stop)
    weights = _weight_events(method, stop, steps)
    if channels:
        weights.setdefault(stop, (method.density, method.density))
    return tuple(
        Event(step, channels.get(step), *weights.get(step, (None, None)))
        for step in sorted(channels.keys() | weights.keys())
    )


def _channel_events(method: Method, stop: int) -> dict[int, float]:
    """Step → channel sparsity (Eq. 3 with S_i = 0, t_0 = 0, nΔT = τ_stop)."""
    if method.channel_sparsity == 0:
        return {}
    every = _interval(method.channel_every, stop)
    at = [*range(every - method.channel_offset % every, stop, every), stop]
    return {step: schedules.cubic(step / stop, final=method.channel_sparsity) for step in at}


def _weight_events(method: Method, stop: int, steps: int) -> dict[int, tuple[float, float]]:
    """Step → (density after pruning, density after growing)."""
    if method.update_every == 0 or method.sparsity == 0:
        return {}
    every = _interval(method.update_every, stop)
    events = {step: _exploration(method, step / stop) for step in range(every, stop, every)}
    events[stop] = (method.density, method.density)
    if method.explore_after_stop:
        for step in range(stop + every - stop % every, steps, every):
            drop = LATE_FLOOR + (method.late_drop - LATE_FLOOR) * schedules.cosine(step / steps)
            events[step] = (method.density * (1 - drop), method.density)
    return events


def _interval(every: int | None, stop: int) -> int:
    """Steps between events; by default 50 of them until τ_stop."""
    return every or max(1, stop // 50)


def _exploration(method: Method, progress: float) -> tuple[float, float]:
    """One event before τ_stop: prune to the budget and grow beyond it, or drop below it and grow back."""
    decay = DECAYS[method.decay](progress)
    if method.soft_bound > 0:
        return method.density, min(1.0, method.density + method.soft_bound * decay)
    return method.density * (1 - method.drop_fraction * decay), method.density


def Chase(**settings: Any) -> Method:  # noqa: N802 - reads as the type that it makes
    """Chase (paper §3): gradual removal of amenable channels, soft memory bound, global exploration."""
    return make("chase", **settings)


def RigL(**settings: Any) -> Method:  # noqa: N802
    """RigL (Evci et al. 2020): drop small weights, grow where the gradient is large, layer by layer."""
    return make("rigl", **settings)


def SET(**settings: Any) -> Method:  # noqa: N802
    """SET (Mocanu et al. 2018): drop small weights, grow at random, layer by layer."""
    return make("set", **settings)


METHODS: Registry[Method] = Registry(
    "method",
    {
        "dense": Method(name="dense", sparsity=0.0, update_every=0),
        "static": Method(name="static", update_every=0),
        "set": Method(name="set", grow="random", scope="layer", soft_bound=0.0, update_every=100, stop=1.0),
        "rigl": Method(name="rigl", scope="layer", soft_bound=0.0, update_every=100, stop=0.75),
        "chase": Method(name="chase"),
    },
)


def make(name: str, **settings: Any) -> Method:
    """The method called `name` with some settings changed.

    Raises:
        RecipeError: for a setting that no method has or a value out of its range.
        UnknownName: for a name that `METHODS` does not hold.
    """
    method = METHODS[name]
    known = [field.name for field in fields(Method) if field.name != "name"]
    for key in settings:
        if key not in known:
            raise RecipeError(f"method.{key}: no such setting; {did_you_mean(key, known)}")
    return replace(method, **settings)
