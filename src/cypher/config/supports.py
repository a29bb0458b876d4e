"""What combines with what: the one function that validation, tests, docs and ``cypher models matrix`` ask."""

from __future__ import annotations

from dataclasses import dataclass

from cypher.config.adapter import METHODS
from cypher.config.task import TASK_KINDS

ARCHITECTURES = ("bert", "llama", "seq2seq")
# Every method, and the preset whose gates make it another one.
ADAPTERS = ("none", *METHODS, "unipelt")
TASKS = TASK_KINDS
# What ``[arrangement]`` does with an adapter: the new one on a trained one, trained ones fused, lower blocks left out.
ARRANGEMENTS = ("none", "stack", "fuse", "drop")
# Methods that add something where a sub-layer ends, which is what a fusion weighs.
_FUSIBLE = ("bottleneck", "compacter")
# Methods at the embedding alone, which belongs to no block.
_OUTSIDE_BLOCKS = ("prompt", "invertible")


@dataclass(frozen=True, kw_only=True)
class Support:
    """Whether a combination works; truthy when it does.

    Args:
        ok: It works.
        reason: Why not; empty when it works.
    """

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


def supports(*, model: str, adapter: str = "none", task: str = "extract_span", arrangement: str = "none") -> Support:
    """Say whether an architecture, an adapter method, a task and what is done with the adapter train together.

    Args:
        model: Architecture, one of ``ARCHITECTURES``.
        adapter: Method or preset, one of ``ADAPTERS``.
        task: Kind, one of ``TASKS``.
        arrangement: One of ``ARRANGEMENTS``: ``stack`` of the adapter on a trained one of any method, ``fuse`` of
            trained ones of this method, ``drop`` of the adapters of lower blocks in training.

    Example:
        >>> supports(model="bert", adapter="lora", task="extract_span").ok
        True
    """
    for given, known, what in (
        (model, ARCHITECTURES, "architecture"),
        (adapter, ADAPTERS, "adapter"),
        (task, TASKS, "task"),
        (arrangement, ARRANGEMENTS, "arrangement"),
    ):
        if given not in known:
            return Support(ok=False, reason=f"no {what} is called {given}; there are {', '.join(known)}")
    if adapter == "unipelt" and model != "bert":
        return Support(
            ok=False, reason="unipelt's gates average over a whole row: a decoder's token would see those after it"
        )
    if arrangement != "none" and adapter == "none":
        return Support(ok=False, reason=f"without an adapter there is nothing to {arrangement}")
    if arrangement == "fuse" and adapter not in _FUSIBLE:
        return Support(
            ok=False, reason=f"a fusion weighs what is added where a sub-layer ends, and {adapter} does more or other"
        )
    if arrangement == "drop" and adapter in _OUTSIDE_BLOCKS:
        return Support(ok=False, reason=f"{adapter} is at the embedding: no block has a part of it to leave out")
    if task == "mask_lm" and model != "bert":
        return Support(
            ok=False, reason=f"{model} writes from left to right: a hidden token would be told without what follows it"
        )
    if task == "causal_lm" and model != "llama":
        reasons = {"bert": "sees the token it should predict", "seq2seq": "answers a source, and a text alone has none"}
        return Support(ok=False, reason=f"{model} {reasons[model]}")
    if task == "translate" and model != "seq2seq":
        return Support(ok=False, reason=f"{model} has no second side that reads a source")
    if task == "embed" and model == "seq2seq":
        return Support(ok=False, reason="seq2seq spreads a text over two sides, so there is no one vector of it")
    if task == "extract_span" and model == "llama":
        return Support(
            ok=False, reason="llama reads from left to right: an answer's start is scored before its end is seen"
        )
    if task == "extract_span" and model == "seq2seq":
        return Support(
            ok=False, reason="seq2seq answers in tokens of its decoder, which are none of the passage: no span to score"
        )
    if task == "tag" and model != "bert":
        return Support(
            ok=False, reason=f"{model} reads from left to right: a word's tag is due before the words after it are seen"
        )
    if task == "judge_candidates" and model != "bert":
        return Support(
            ok=False, reason=f"{model} has no mask under which several candidates share a passage and not each other"
        )
    return Support(ok=True)


def matrix() -> list[dict[str, str | bool]]:
    """One row a combination: ``model, adapter, arrangement, task, ok, reason``."""
    return [
        {
            "model": model,
            "adapter": adapter,
            "arrangement": arrangement,
            "task": task,
            "ok": support.ok,
            "reason": support.reason,
        }
        for model in ARCHITECTURES
        for adapter in ADAPTERS
        for arrangement in ARRANGEMENTS
        for task in TASKS
        for support in [supports(model=model, adapter=adapter, task=task, arrangement=arrangement)]
    ]
