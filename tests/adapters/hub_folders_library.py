"""AdapterHub's library beside ours, through folders; run by an interpreter that has ``adapters``.

``python hub_folders_library.py FOLDER`` reads what the tests wrote into ``FOLDER/ours`` and writes into
``FOLDER/theirs`` what the library makes of the same kind of thing, each with the hidden states that come out in
``hidden.safetensors``. ``plan.json`` says what there is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import adapters
import torch
import transformers
from adapters import composition
from adapters_library import config_of, make, randomise
from safetensors.torch import load_file, save_file

CLASSES = {
    "bert": adapters.BertAdapterModel,
    "llama": adapters.LlamaAdapterModel,
    "bart": adapters.BartAdapterModel,
}


def build(architecture: str, weights: Path) -> torch.nn.Module:
    """A model that may have heads, with our weights."""
    plain = make(architecture)
    model = CLASSES[architecture](plain.config).eval()
    tensors = load_file(weights)
    result = model.base_model.load_state_dict(tensors, strict=False)
    # A pooler is not gone through; prompts hold the table of tokens that the model has.
    others = [name for name in result.missing_keys if not name.startswith(("pooler.", "prompt_tuning."))]
    assert not others + result.unexpected_keys, others + result.unexpected_keys
    model.set_attn_implementation("eager")
    return model


def hidden_of(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.base_model(**given).last_hidden_state


def save(model: torch.nn.Module, folder: Path, name: str) -> None:
    """In safetensors where the library can: it cannot write tensors that two places share."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model.save_adapter(str(folder), name, use_safetensors=True, with_head=False)
    except RuntimeError:
        model.save_adapter(str(folder), name, with_head=False)


def fresh(model: torch.nn.Module, add: object) -> None:
    """Attach with ``add``, then give what was added values as if it had been trained."""
    base = {name for name, _ in model.named_parameters()}
    add()
    randomise(model, base)
    model.eval()


def average(model: torch.nn.Module, case: dict, root: Path) -> None:
    for name in case["names"]:
        model.load_adapter(str(root / case["folder"] / name), use_safetensors=True)
    model.average_adapter(
        "mean",
        case["names"],
        weights=case["weights"],
        combine_strategy=case["strategy"],
        svd_rank=case.get("rank"),
        set_active=True,
    )


def tree_of(values: dict) -> object:
    return composition.AdapterCompositionBlock.from_dict(values)


class Oracle:
    """The library, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def made(self, architecture: str) -> torch.nn.Module:
        return build(architecture, self.root / f"{architecture}.safetensors")

    def given(self, architecture: str) -> dict[str, torch.Tensor]:
        return load_file(self.root / f"{architecture}.inputs.safetensors")

    def write(self, name: str, model: torch.nn.Module, architecture: str, **more: torch.Tensor) -> None:
        model.eval()
        hidden = hidden_of(model, {**self.given(architecture), **more})
        save_file({"hidden": hidden.contiguous()}, self.root / f"{name}.hidden.safetensors")

    def read_adapter(self, folder: str, architecture: str) -> None:
        model = self.made(architecture)
        model.load_adapter(str(self.root / folder), use_safetensors=True, set_active=True)
        self.write(folder, model, architecture)

    def write_adapter(self, folder: str, architecture: str, method: str) -> None:
        model = self.made(architecture)
        fresh(model, lambda: model.add_adapter("mine", config=config_of(method)))
        save(model, self.root / folder, "mine")

    def read_setup(self, folder: str, architecture: str, task: dict[str, torch.Tensor]) -> None:
        model = self.made(architecture)
        model.load_adapter_setup(str(self.root / folder), use_safetensors=True, set_active=True)
        self.write(folder, model, architecture, **task)

    def write_setup(self, folder: str, architecture: str, method: str, values: dict) -> None:
        model = self.made(architecture)

        def add() -> None:
            for name in "abc":
                model.add_adapter(name, config=config_of(method))
            for fuse in fusions_of(tree_of(values)):
                model.add_adapter_fusion(fuse.name.split(","))  # of a stack the last adapter

        fresh(model, add)
        model.save_adapter_setup(str(self.root / folder), tree_of(values), use_safetensors=True)


def main(root: Path) -> None:
    plan = json.loads((root / "plan.json").read_text())
    torch.manual_seed(0)
    oracle = Oracle(root)
    for method, architecture in plan["methods"]:
        folder = f"{architecture}.{method}"
        oracle.read_adapter(f"ours/{folder}", architecture)
        oracle.write_adapter(f"theirs/{folder}", architecture, method)
        # Read again: the library does not write down all that it was told.
        oracle.read_adapter(f"theirs/{folder}", architecture)
    for setup, architecture, method, values in plan["setups"]:
        folder = f"{architecture}.{method}.{setup}"
        task = {"task_ids": torch.tensor([2, 0, 2])} if setup == "multi task" else {}
        oracle.read_setup(f"ours/{folder}", architecture, task)
        oracle.write_setup(f"theirs/{folder}", architecture, method, values)
        oracle.read_setup(f"theirs/{folder}", architecture, task)
    for case in plan["averages"]:
        model = oracle.made("bert")
        average(model, case, root)
        oracle.write(f"ours/{case['id']}", model, "bert")
        save(model, root / "theirs" / case["id"], "mean")
    heads(root, oracle.made("bert"), oracle.given("bert"))


def fusions_of(tree: object) -> list[object]:
    if isinstance(tree, str):
        return []
    inner = [fusion for child in tree for fusion in fusions_of(child)]
    return [tree, *inner] if isinstance(tree, composition.Fuse) else inner


def heads(root: Path, model: torch.nn.Module, given: dict[str, torch.Tensor]) -> None:
    """A head of ours there, and one of each kind of theirs."""
    model.load_head(str(root / "ours" / "head"), use_safetensors=True)
    with torch.no_grad():
        found = model(**given, head="answers")
    save_file(
        {"start": found.start_logits.contiguous(), "end": found.end_logits.contiguous()},
        root / "ours" / "head.scores.safetensors",
    )
    model.add_qa_head("qa")
    model.add_classification_head("kinds", num_labels=3)
    model.add_tagging_head("tags", num_labels=5)
    model.eval()
    (root / "theirs" / "heads").mkdir()
    for name in ("qa", "kinds", "tags"):
        model.save_head(str(root / "theirs" / "heads" / name), name, use_safetensors=True)
    with torch.no_grad():
        found = model(**given, head="qa")
    save_file(
        {"start": found.start_logits.contiguous(), "end": found.end_logits.contiguous()},
        root / "theirs" / "head.scores.safetensors",
    )


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    (Path(sys.argv[1]) / "theirs").mkdir()
    main(Path(sys.argv[1]))
