"""What AdapterHub's library makes of its methods; run by an interpreter that has ``adapters``, not by the tests' own.

``python adapters_library.py FOLDER`` writes one file of weights an architecture, and for every architecture and
method a file with the adapter's tensors by their names there, and with the hidden states of the last layer; the same
for every composition of the adapters ``a``, ``b`` and ``c``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import adapters
import adapters.composition
import torch
import transformers
from adapters import AdapterConfig, ConfigUnion
from compositions import COMPOSED, COMPOSITIONS, NOT_COMPOSED, TASK_IDS
from safetensors.torch import save_file

WIDTH = 64

MODELS = {
    "bert": lambda: transformers.BertModel(
        transformers.BertConfig(
            vocab_size=60, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
            max_position_embeddings=40,
        ),
        add_pooling_layer=False,
    ),
    # As many heads of keys and values as of queries: VeRA's shared matrices have one shape there.
    "llama": lambda: transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=60, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
            intermediate_size=40, max_position_embeddings=40, rms_norm_eps=1e-5,
        )
    ),
    "bart": lambda: transformers.BartModel(
        transformers.BartConfig(
            vocab_size=60, d_model=WIDTH, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=40,
            pad_token_id=1, decoder_start_token_id=3,
        )
    ),
}  # fmt: skip

# By the names of presets, with the settings that a small model needs and further options beside them.
METHODS = {
    "seq_bn": {},
    "double_seq_bn": {},
    "par_bn": {"reduction_factor": 4},
    "scaled_par_bn": {"reduction_factor": 4},
    "seq_bn with norms": {"ln_before": True, "ln_after": True},
    "seq_bn with a norm over the residual": {"ln_after": True, "adapter_residual_before_ln": True},
    "seq_bn added to what it reads": {"residual_before_ln": False, "scaling": "channel"},
    "seq_bn without block 1": {"leave_out": [1]},
    "double_seq_bn everywhere": {"cross_adapter": True},
    "seq_bn_inv": {},
    "double_seq_bn_inv": {},
    "compacter": {"reduction_factor": 8},
    "compacter++": {"reduction_factor": 8},
    "compacter with own rules": {"reduction_factor": 8, "shared_phm_rule": False, "phm_rank": 2},
    "prefix_tuning": {"prefix_length": 5, "bottleneck_size": 12},
    "prefix_tuning_flat": {"prefix_length": 5},
    "prompt_tuning": {},
    "lora": {},
    "lora everywhere": {
        "attn_matrices": ["q", "k", "v"], "intermediate_lora": True, "output_lora": True, "r": 4, "alpha": 16,
    },
    "ia3": {},
    "vera": {},
    "dora": {},
    "dvora": {},
    "loreft": {"r": 2},
    "noreft": {"r": 2},
    "direft": {"r": 2},
    "loreft at both ends": {"r": 2, "suffix_positions": 2},
    "loreft at tied ends": {"r": 2, "suffix_positions": 2, "tied_weights": True},
    "mam": {},
    "unipelt": {},
}  # fmt: skip

# What is not compared, and whose fault it is.
ABSENT = {
    # The library's Llama and BART take no prompts.
    ("prompt_tuning", "llama"),
    ("prompt_tuning", "bart"),
    # Its gates average over tokens that a decoder has not written yet; refused here.
    ("unipelt", "llama"),
    ("unipelt", "bart"),
    # The last tokens of a text that is being written are others with every token; refused here. Its BART also looks
    # for the encoder's last tokens in the decoder.
    ("loreft at both ends", "llama"),
    ("loreft at both ends", "bart"),
    ("loreft at tied ends", "llama"),
    ("loreft at tied ends", "bart"),
}


def compose(values: str | dict) -> object:
    if isinstance(values, str):
        return values
    options = dict(values)
    kind, children = options.pop("type"), [compose(child) for child in options.pop("children")]
    if kind == "Average":
        # The library weighs, and then divides by the number of adapters once more.
        options = {"weights": [weight * len(children) for weight in options["weights"]], "normalize_weights": False}
    return getattr(adapters.composition, kind)(*children, **options)


def fusions_of(values: str | dict) -> list[object]:
    if isinstance(values, str):
        return []
    inner = [fusion for child in values["children"] for fusion in fusions_of(child)]
    return [compose(values), *inner] if values["type"] == "Fuse" else inner


def config_of(method: str) -> AdapterConfig:
    preset, options = method.split(" ")[0], METHODS[method]
    if preset == "mam":
        prefix = AdapterConfig.load("prefix_tuning", prefix_length=5, bottleneck_size=12)
        return ConfigUnion(prefix, AdapterConfig.load("par_bn", reduction_factor=4))
    return AdapterConfig.load(preset, **options)


def make(architecture: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = MODELS[architecture]().eval()
    # The fused kernel is told "causal" without a mask, which counts from the first key: a prefix hides the tokens.
    model.set_attn_implementation("eager")
    for name, parameter in model.named_parameters():
        # The library's DoRA scales the bias by the magnitude, which the paper does not: without biases they agree.
        is_attention_bias = any(part in name for part in ("query.bias", "value.bias", "q_proj.bias", "v_proj.bias"))
        torch.nn.init.zeros_(parameter) if is_attention_bias else torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(architecture: str) -> dict[str, torch.Tensor]:
    """Rows of equal length: the library's gates average over padding as well."""
    torch.manual_seed(1)
    made = {"input_ids": torch.randint(4, 60, (3, 9)), "attention_mask": torch.ones(3, 9, dtype=torch.int64)}
    if architecture == "bart":
        made["decoder_input_ids"] = torch.randint(4, 60, (3, 7))
    return made


def randomise(model: torch.nn.Module, base: set[str]) -> dict[str, torch.Tensor]:
    """Values for all that the method has added, as it is used in the forward pass, by its name."""
    added = {}
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in base:
                continue
            drawn = torch.randn(parameter.shape, generator=generator) * 0.2
            if name.endswith(("vera_D", "vera_B")):
                drawn = torch.diag(drawn.diagonal())  # only vectors are trained in the paper
            if "projection.parametrizations" not in name:
                parameter.copy_(drawn)
                added[name] = parameter.detach().clone()
        for name, module in model.named_modules():
            if hasattr(module, "parametrizations"):
                drawn = torch.randn(module.weight.shape, generator=generator)
                module.weight = torch.linalg.qr(drawn.T)[0].T
                added[f"{name}.weight"] = module.weight.detach().clone()
    return added


def main(folder: Path) -> None:
    for architecture in MODELS:
        model = make(architecture)
        given = inputs(architecture)
        weights = {name: value.detach().clone() for name, value in model.named_parameters()}
        weights |= {f"inputs.{name}": value for name, value in given.items()}
        with torch.no_grad():
            weights["inputs.hidden"] = model(**given).last_hidden_state
        save_file(weights, folder / f"{architecture}.safetensors")
        for method in METHODS:
            if (method, architecture) in ABSENT:
                continue
            model = make(architecture)
            adapters.init(model)
            base = {name for name, _ in model.named_parameters()}
            model.add_adapter("mine", config=config_of(method))
            model.set_active_adapters("mine")
            model.eval()
            added = randomise(model, base)
            with torch.no_grad():
                hidden = model(**given).last_hidden_state
            save_file(
                {"hidden": hidden, **{name: value.contiguous() for name, value in added.items()}},
                folder / f"{architecture}.{method}.safetensors",
            )
        for method in COMPOSED:
            for composition, values in COMPOSITIONS.items():
                if NOT_COMPOSED.isdisjoint({(method, composition), (architecture, composition)}):
                    write_composition(folder, architecture, method, composition, values, given)


def write_composition(
    folder: Path, architecture: str, method: str, composition: str, values: dict, given: dict[str, torch.Tensor]
) -> None:
    model = make(architecture)
    adapters.init(model)
    base = {name for name, _ in model.named_parameters()}
    for name in "abc":
        model.add_adapter(name, config=config_of(method))
    for fusion in fusions_of(values):
        model.add_adapter_fusion(fusion)
    model.set_active_adapters(compose(values))
    model.eval()
    added = randomise(model, base)
    task = {"task_ids": torch.tensor(TASK_IDS)} if composition == "multi task" else {}
    with torch.no_grad():
        hidden = model(**given, **task).last_hidden_state
    save_file(
        {"hidden": hidden, **{name: value.contiguous() for name, value in added.items()}},
        folder / f"{architecture}.{method}.{composition}.safetensors",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
