"""How many bytes a step keeps from its forward to its backward: an estimate, by what each brick's derivative needs.

Of one token in one block, with heads and inner widths divided by ``tp``:

- attention keeps its input, query, key and value (those repeated for groups of heads), the probabilities (one a head
  and key) and what they have mixed;
- a feed-forward keeps its input and its inner values before and after the activation; a gated one those of both layers,
  the activation's and the product;
- a norm keeps its input, an RMS norm also its result; the two are divided by ``tp`` under ``sequence_parallel``.

In bf16 a trained matrix is cast where it is used, and the copy is kept as well. With activation checkpointing a block
keeps its input alone, and one block at a time everything. Not counted are embeddings, heads, logits (which exist a
stretch at a time), adapters and dropout masks. Compare Korthikanti et al. 2022, arXiv 2205.05198, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from cypher.config import ParallelPlan
from cypher.layers.attention import FullAttention
from cypher.layers.feed_forward import FeedForward, GatedFeedForward
from cypher.layers.linear import Linear
from cypher.layers.norm import RmsNorm
from cypher.models.model import Model


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a plan is to work on.

    Args:
        batch_size: Rows of a step, over all copies.
        sequence_length: Tokens of a row.
        accumulation: Micro-batches that each copy's share is cut into, where there is no pipeline.
        compute: Number format of the matrix products.
    """

    batch_size: int
    sequence_length: int
    accumulation: int = 1
    compute: Literal["fp32", "bf16"] = "bf16"

    @property
    def width(self) -> int:
        """Bytes of a number in the forward."""
        return 2 if self.compute == "bf16" else 4

    def tokens(self, plan: ParallelPlan) -> int:
        """Of a micro-batch in one copy."""
        parts = plan.pipeline_microbatches if plan.pp > 1 else self.accumulation
        return -(-self.batch_size // (plan.dp * parts)) * self.sequence_length


def in_flight(plan: ParallelPlan, rank: int) -> float:
    """Most micro-batches whose activations a process along the ``pp`` axis holds, counting all its blocks as one.

    Sources: GPipe keeps all (Huang et al. 2018, arXiv 1811.06965); 1F1B and interleaved: Narayanan et al. 2021, arXiv
    2104.04473, section 2.2; breadth first: Lamy-Poirier 2022, arXiv 2211.05953; V-shaped zero bubble as much as 1F1B's
    first stage: Qi et al. 2024, arXiv 2405.15362; DualPipeV a stage more: DeepSeek-AI 2024, arXiv 2412.19437, table 2.

    Args:
        plan: With or without a pipeline.
        rank: Place on the axis.
    """
    pp, count, stretches = plan.pp, plan.pipeline_microbatches, plan.stages_per_rank
    if pp == 1:
        return 1
    if plan.schedule in ("gpipe", "looped_bfs"):
        return count
    if plan.schedule == "1f1b":
        return min(count, pp - rank)
    if plan.schedule == "zbv_zero_bubble":
        return min(count, pp)
    if plan.schedule == "dualpipe_v":
        return min(count, pp + 0.5)
    return min(count, ((pp - rank - 1) * 2 + (stretches - 1) * pp + 1) / stretches)


def activation_bytes(model: Model, blocks: list[str], plan: ParallelPlan, work: Workload, rank: int = 0) -> int:
    """Bytes that one process keeps at most.

    Args:
        model: Undivided; on any device.
        blocks: Names of those that the process runs.
        plan: How it is divided.
        work: What it works on.
        rank: Place of the process on the ``pp`` axis.
    """
    wanted, tokens = set(blocks), work.tokens(plan)
    whole = [_block_bytes(block, plan, work, tokens) for name, block in model.blocks() if name in wanted]
    flying = in_flight(plan, rank)
    if plan.activation_checkpointing:
        inputs = len(whole) * tokens * model.width * work.width
        return round(inputs * flying + max(whole, default=0))
    return round(sum(whole) * flying)


def _block_bytes(block: nn.Module, plan: ParallelPlan, work: Workload, tokens: int) -> int:
    numbers = 0.0  # of a token
    wide = 0.0  # likewise, in fp32
    weights = 0.0  # of the block
    for module in block.modules():
        if isinstance(module, FullAttention):
            width = module.query.in_features
            numbers += width + (4 * width + module.n_heads * work.sequence_length) / plan.tp
        elif isinstance(module, FeedForward):
            numbers += module.up.in_features + 2 * module.up.out_features / plan.tp
        elif isinstance(module, GatedFeedForward):
            numbers += module.up.in_features + 4 * module.up.out_features / plan.tp
        elif isinstance(module, (nn.LayerNorm, RmsNorm)):
            width = module.weight.numel()
            share = width / plan.tp if plan.sequence_parallel else width
            if isinstance(module, RmsNorm):
                wide, numbers = wide + share, numbers + share
            else:
                numbers += share
        if isinstance(module, Linear) and module.weight.requires_grad:
            weights += module.weight.numel() / plan.tp
    cast = weights * work.width if work.compute == "bf16" else 0
    return round(tokens * (numbers * work.width + wide * 4) + cast)
