"""Models that start from random weights, written as folders like published ones, so that all else is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn

from cypher.config import FreshConfig
from cypher.files import write_text
from cypher.hub.fetch import resolve
from cypher.hub.tokenizer import load_tokenizer, special_tokens
from cypher.hub.weights import write_safetensors
from cypher.models.load import ARCHITECTURES, Dropout
from cypher.models.model import Model

# Roles and tokens of a tokenizer that is trained here; the first one gets number 0.
SPECIAL = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


def write_fresh_model(folder: Path, config: FreshConfig, texts: Iterable[str], *, seed: int) -> None:
    """Write configuration, tokenizer and random weights.

    Args:
        folder: Made if it is absent; what is in it is replaced.
        config: Sizes.
        texts: To train a tokenizer on; not looked at where one is given.
        seed: Of the weights.

    Raises:
        ModelError: The model whose tokenizer is wanted cannot be found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if config.tokenizer is None:
        train_tokenizer(texts, vocabulary_size=config.vocabulary_size).save(str(folder / "tokenizer.json"))
        write_text(folder / "special_tokens_map.json", json.dumps(SPECIAL, indent=1))
    else:
        given = resolve(config.tokenizer)
        for name in ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json"):
            if (given / name).is_file():
                shutil.copyfile(given / name, folder / name)
    vocabulary_size = load_tokenizer(folder).get_vocab_size()
    published = _published(config, vocabulary_size, special_tokens(folder).pad_id)
    architecture = ARCHITECTURES[published["model_type"]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture.build(published, _names(config), Dropout())
        for module in model.modules():
            _draw(module, width=config.width, is_seq2seq=config.architecture == "seq2seq")
    tensors = {str(architecture.names.to_theirs(name)): value for name, value in model.state_dict().items()}
    write_safetensors(folder / "model.safetensors", tensors)
    write_text(folder / "config.json", json.dumps(published, indent=1) + "\n")


def outline_fresh_model(config: FreshConfig) -> Model:
    """The same model without memory for its weights, on the meta device.

    Args:
        config: Sizes; a tokenizer that is to be trained is taken to fill its vocabulary.

    Raises:
        ModelError: The model whose tokenizer is wanted cannot be found.
    """
    vocabulary_size = config.vocabulary_size
    if config.tokenizer is not None:
        vocabulary_size = load_tokenizer(resolve(config.tokenizer)).get_vocab_size()
    published = _published(config, vocabulary_size, 0)
    with torch.device("meta"):
        return ARCHITECTURES[published["model_type"]].build(published, _names(config), Dropout())


def _names(config: FreshConfig) -> set[str]:
    """Tensors that a family has or has not."""
    return {"prediction.dense.weight"} if config.architecture == "bert" else set()


def _draw(module: nn.Module, *, width: int, is_seq2seq: bool) -> None:
    """As each family's paper does: a small normal, or Xavier's uniform beside embeddings of length 1."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=width**-0.5 if is_seq2seq else 0.02)
    elif isinstance(module, nn.Linear):
        if is_seq2seq:
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _published(config: FreshConfig, vocabulary_size: int, pad_id: int) -> dict[str, Any]:
    """What a ``config.json`` of the family says."""
    if config.architecture == "seq2seq":
        sides = {
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in (
                ("layers", config.n_layers),
                ("attention_heads", config.n_heads),
                ("ffn_dim", config.inner_width),
            )
        }
        # Sinusoidal positions and a norm before each sub-layer, which trains without a long warm-up.
        return {"model_type": "pegasus", "vocab_size": vocabulary_size, "d_model": config.width, **sides,
                "max_position_embeddings": config.max_positions, "scale_embedding": True,
                "activation_function": "gelu", "pad_token_id": pad_id}  # fmt: skip
    sizes = {
        "vocab_size": vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.inner_width,
        "max_position_embeddings": config.max_positions,
        "pad_token_id": pad_id,
    }
    if config.architecture == "llama":
        return {"model_type": "llama", "rms_norm_eps": 1e-5, "tie_word_embeddings": True, **sizes}
    return {"model_type": "bert", "hidden_act": "gelu", "type_vocab_size": 2, **sizes}


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909; bytes: Radford et al. 2019), which spells every text.

    Args:
        texts: All languages together, of the training part alone.
        vocabulary_size: At most so many tokens; 256 bytes and the special tokens are always among them.

    Example:
        >>> tokenizer = train_tokenizer(["a river", "a bridge"], vocabulary_size=300)
        >>> tokenizer.decode(tokenizer.encode("a brïdge").ids)
        'a brïdge'
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    # A word is the same at the beginning of a text as within it.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
