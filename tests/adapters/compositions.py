"""Compositions that are compared with AdapterHub's library; the script that asks it and the test read this table."""

from __future__ import annotations

from typing import Any

# As Composition.to_dict writes them.
COMPOSITIONS: dict[str, dict[str, Any]] = {
    "stack": {"type": "Stack", "children": ["b", "a", "c"]},
    "fuse": {"type": "Fuse", "children": ["a", "b", "c"]},
    "fuse on a stack": {"type": "Stack", "children": ["c", {"type": "Fuse", "children": ["b", "a"]}]},
    "split": {"type": "Split", "children": ["a", "c"], "splits": [4, 5]},
    "batch split": {"type": "BatchSplit", "children": ["c", "b"], "batch_sizes": [2, 1]},
    "parallel": {"type": "Parallel", "children": ["a", "b", "c"]},
    "parallel stacks": {"type": "Parallel", "children": [{"type": "Stack", "children": ["a", "b"]}, "c"]},
    "average": {"type": "Average", "children": ["a", "b"], "weights": [0.75, 0.25], "normalise_weights": False},
    "multi task": {"type": "MultiTask", "children": ["a", "b", "c"]},
}
TASK_IDS = [2, 0, 2]
COMPOSED = ("seq_bn", "compacter", "lora", "prefix_tuning")

# What is not compared, by method or architecture and composition, and whose fault it is.
NOT_COMPOSED = {
    # Only what is added behind a sub-layer is fused, in the library as here; it splits tokens of nothing else either.
    *((method, composition) for method in ("lora", "prefix_tuning") for composition in ("fuse", "fuse on a stack")),
    *((method, "split") for method in ("lora", "prefix_tuning")),
    # No sum of rows that stand for different things; the library refuses it too.
    ("prefix_tuning", "average"),
    # The library wants one split for source and target, which have different lengths.
    ("bart", "split"),
    # A second LoRA reads what the first one adds, instead of what the layer reads, and what the first adds is lost.
    ("lora", "stack"),
    ("lora", "parallel stacks"),
    # The norm in front of the first adapter of an inner composition is taken twice.
    ("seq_bn", "parallel stacks"),
    ("seq_bn", "multi task"),
    # Rows with a shorter prefix get keys of ones in front, and a mask that hardly hides them.
    ("prefix_tuning", "parallel stacks"),
}
