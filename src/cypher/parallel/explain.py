"""How many bytes each process of a plan holds, by kind, before anything is started."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from cypher.config import ParallelPlan
from cypher.models.headed import HeadedModel
from cypher.parallel.activations import BlockProfile, Workload, activation_bytes, profile
from cypher.parallel.holding import WIDE, Part, blocks_by_rank, fullest_optimiser, parts_by_rank
from cypher.parallel.tensor_plan import cuts_of

MOMENTS = 2
STEP = 4
"""Bytes of AdamW's count of steps, one a parameter."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Bytes of one process.

    Args:
        parameters: Trained weights, fp32.
        gradients: Of them.
        optimiser: Both moments of AdamW, and its counts of steps.
        frozen: Weights that are not trained, in the format of the matrix products.
        gathered: Within a step, what ``zero`` 2 and 3 put together of what the copies divide.
        activations: Within a step; an estimate, see :mod:`cypher.parallel.activations`.
    """

    parameters: int
    gradients: int
    optimiser: int
    frozen: int
    gathered: int = 0
    activations: int = 0

    @property
    def held(self) -> int:
        """After a step, before its gradients are dropped."""
        return self.parameters + self.gradients + self.optimiser + self.frozen

    @property
    def peak(self) -> int:
        """Within a step."""
        return self.held + self.gathered + self.activations


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What the processes of a plan hold.

    Args:
        plan: The plan.
        ranks: The fullest process at each place of the ``pp`` axis.
    """

    plan: ParallelPlan
    ranks: tuple[Held, ...]

    @property
    def worst(self) -> Held:
        """The process that needs most within a step."""
        return max(self.ranks, key=lambda held: held.peak)


class Explainer:
    """Explains many plans for one model; what they share is worked out once.

    Args:
        headed: The undivided model and its head, with adapters and what is frozen; on any device, meta too.
        work: What it is to work on; ``None`` counts no activations, and weights that are not trained in fp32.
    """

    def __init__(self, headed: HeadedModel, work: Workload | None = None) -> None:
        self.headed, self.work = headed, work
        self._profiles = {name: profile(block, headed.model.width) for name, block in headed.model.blocks()}
        self._cuts = cuts_of(headed)
        self._parts: dict[Hashable, list[list[Part]]] = {}
        self._held: dict[Hashable, list[Held]] = {}

    def parts(self, plan: ParallelPlan) -> list[list[Part]]:
        """Parts of each process along the ``pp`` axis."""
        key = self._divided(plan)
        if key not in self._parts:
            self._parts[key] = parts_by_rank(self.headed, plan, self._cuts)
        return self._parts[key]

    def blocks(self, plan: ParallelPlan) -> list[list[BlockProfile]]:
        """Blocks of each process along the ``pp`` axis."""
        return [[self._profiles[name] for name in names] for names in blocks_by_rank(self.headed.model, plan)]

    def explain(self, plan: ParallelPlan) -> Explanation:
        """Bytes of each place of the ``pp`` axis under a plan."""
        key = (self._divided(plan), plan.dp, plan.zero, plan.replicas)
        if key not in self._held:
            self._held[key] = [self._weights(plan, parts) for parts in self.parts(plan)]
        held = self._held[key]
        if self.work is not None:
            work, blocks = self.work, self.blocks(plan)
            held = [
                replace(weights, activations=activation_bytes(blocks[rank], plan, work, rank))
                for rank, weights in enumerate(held)
            ]
        return Explanation(plan=plan, ranks=tuple(held))

    @staticmethod
    def _divided(plan: ParallelPlan) -> Hashable:
        """What parts depend on."""
        return plan.tp, plan.pp, plan.stages_per_rank, plan.is_v_shaped

    def _weights(self, plan: ParallelPlan, parts: Sequence[Part]) -> Held:
        frozen_width = WIDE if self.work is None else self.work.number
        trained = [part for part in parts if part.is_trained]
        numbers = sum(part.numel(plan.shards) for part in trained)
        updated, count = fullest_optimiser(trained, plan.dp) if plan.zero == 1 else (numbers, len(trained))
        return Held(
            parameters=numbers * WIDE,
            gradients=numbers * WIDE,
            optimiser=updated * WIDE * MOMENTS + count * STEP,
            frozen=sum(part.numel(plan.shards) for part in parts if not part.is_trained) * frozen_width,
            gathered=_gathered(plan, parts, frozen_width) if plan.shards > 1 else 0,
        )


def explain(plan: ParallelPlan, headed: HeadedModel, work: Workload | None = None) -> Explanation:
    """Bytes that each process holds, by kind; what is said of the arguments of :class:`Explainer` holds here.

    Kernels' own layouts of frozen weights (:mod:`cypher.layers.frozen_linear`) and buffers of the communication come on
    top, and with ``offload`` what is divided waits in the processor's memory.

    Args:
        plan: Checked by :func:`cypher.parallel.validate.validate`.
        headed: The undivided model and its head.
        work: What it is to work on.

    Example:
        >>> from cypher.models.sizes import preset_model
        >>> model = preset_model("bert-large")
        >>> headed = HeadedModel(model, model.language_head())
        >>> whole, divided = (explain(ParallelPlan.parse(text), headed).worst for text in ("dp=1", "dp=4,zero=3"))
        >>> round(divided.held / whole.held, 2)
        0.25
    """
    return Explainer(headed, work).explain(plan)


def _gathered(plan: ParallelPlan, parts: Iterable[Part], frozen_width: int) -> int:
    """Under ``zero = 3`` the block at work, the next one, and what is outside of blocks; otherwise all there is."""
    weights: dict[str, int] = {}
    gradients: dict[str, int] = {}
    for part in parts:
        weights[part.block] = weights.get(part.block, 0) + part.numel() * (WIDE if part.is_trained else frozen_width)
        gradients[part.block] = gradients.get(part.block, 0) + part.numel() * WIDE * part.is_trained
    if plan.pp > 1:
        # Copies exchange gradients after the last micro-batch, so until then they are whole.
        return sum(weights.values()) + sum(gradients.values())
    gradient = max((size for block, size in gradients.items() if block), default=0)
    if plan.zero == 2:
        return sum(weights.values()) + gradient
    largest = max((size for block, size in weights.items() if block), default=0)
    return weights.get("", 0) + 2 * largest + gradient
