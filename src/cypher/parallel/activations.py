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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from cypher.config import ParallelPlan
from cypher.layers.attention import FullAttention
from cypher.layers.feed_forward import FeedForward, GatedFeedForward
from cypher.layers.norm import RmsNorm


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a plan is to work on.

    Args:
        batch_size: Rows of a step, over all copies.
        sequence_length: Tokens of a row.
        accumulation: Times that micro-batches go through in a step; a pipeline's several at a time.
        compute: Number format of the matrix products.
    """

    batch_size: int
    sequence_length: int
    accumulation: int = 1
    compute: Literal["fp32", "bf16"] = "bf16"

    @property
    def number(self) -> int:
        """Bytes of a number in the forward."""
        return 2 if self.compute == "bf16" else 4

    def tokens(self, plan: ParallelPlan) -> int:
        """Of a micro-batch in one copy."""
        return -(-self.batch_size // (plan.dp * self.micro_batches(plan))) * self.sequence_length

    def micro_batches(self, plan: ParallelPlan) -> int:
        """Of a step in one copy."""
        return plan.pipeline_microbatches * self.accumulation


@dataclass(frozen=True, kw_only=True)
class BlockProfile:
    """What matters of a block for memory and time.

    Args:
        width: Of the hidden states.
        whole: Numbers a token keeps that ``tp`` does not divide.
        divided: Numbers a token keeps that it does.
        heads: Numbers a token keeps for every key, divided by ``tp``.
        norms: Numbers a token keeps that ``sequence_parallel`` divides.
        wide_norms: Likewise, in fp32 always.
        trained: Numbers in matrices that are trained.
        frozen: Numbers in matrices that are not.
        attention_width: Of query and value, all attentions of the block together.
        sums: Times that what the ``tp`` processes have made is summed in one forward.
    """

    width: int
    whole: int = 0
    divided: int = 0
    heads: int = 0
    norms: int = 0
    wide_norms: int = 0
    trained: int = 0
    frozen: int = 0
    attention_width: int = 0
    sums: int = 0

    def kept(self, plan: ParallelPlan, work: Workload, tokens: int) -> int:
        """Bytes from its forward to its backward for one micro-batch."""
        shares = plan.tp if plan.sequence_parallel else 1
        numbers = self.whole + (self.divided + self.heads * work.sequence_length) / plan.tp + self.norms / shares
        cast = self.trained / plan.tp * work.number if work.compute == "bf16" else 0
        return round(tokens * (numbers * work.number + self.wide_norms / shares * 4) + cast)


def profile(block: nn.Module, width: int) -> BlockProfile:
    """What there is in a block.

    Args:
        block: Undivided, on any device.
        width: Of the hidden states.
    """
    found = dict.fromkeys(("whole", "divided", "heads", "norms", "wide_norms", "attention_width", "sums"), 0)
    matrices = {True: 0, False: 0}
    for module in block.modules():
        if isinstance(module, FullAttention):
            inner = module.query.out_features
            found["whole"] += module.query.in_features
            found["divided"] += 4 * inner
            found["heads"] += module.n_heads
            found["attention_width"] += inner
            found["sums"] += 1
        elif isinstance(module, (FeedForward, GatedFeedForward)):
            found["whole"] += module.up.in_features
            found["divided"] += (4 if isinstance(module, GatedFeedForward) else 2) * module.up.out_features
            found["sums"] += 1
        elif isinstance(module, RmsNorm):
            found["norms"] += module.weight.numel()
            found["wide_norms"] += module.weight.numel()
        elif isinstance(module, nn.LayerNorm):
            found["norms"] += module.weight.numel()
        elif isinstance(module, nn.Linear):
            matrices[module.weight.requires_grad] += module.weight.numel()
    return BlockProfile(width=width, trained=matrices[True], frozen=matrices[False], **found)


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


def activation_bytes(blocks: Sequence[BlockProfile], plan: ParallelPlan, work: Workload, rank: int = 0) -> int:
    """Bytes that one process keeps at most.

    Args:
        blocks: Those that the process runs.
        plan: How the model is divided.
        work: What it works on.
        rank: Place of the process on the ``pp`` axis.
    """
    tokens = work.tokens(plan)
    whole = {block: block.kept(plan, work, tokens) for block in set(blocks)}
    flying = in_flight(plan, rank)
    if plan.activation_checkpointing:
        inputs = sum(tokens * block.width * work.number for block in blocks)
        return round(inputs * flying + max(whole.values(), default=0))
    return round(sum(whole[block] for block in blocks) * flying)
