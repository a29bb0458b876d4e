"""What AdapterHub's library calls the places of a model: one row an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cypher.config.adapter_deltas import LinearName
from cypher.errors import ModelError
from cypher.models import bert, llama, seq2seq
from cypher.models.bert import Bert
from cypher.models.llama import Llama
from cypher.models.model import Model
from cypher.models.name_map import NameMap
from cypher.models.seq2seq import Seq2Seq


@dataclass(frozen=True, kw_only=True)
class HubArchitecture:
    """Places by our names to names there; ``{}`` stands for a block's number.

    Args:
        names: Of the model's own weights; ``model.`` in front of them is left out there.
        blocks: By segment.
        joins: Behind which bottlenecks stand.
        attentions: Within a block.
        prefixes: What the prefixes of one kind of attention are called, by segment and attention.
        invertible: The module of reversible changes.
        intermediate: Our name of the linear layer that ``intermediate_lora`` means.
        output: That ``output_lora`` means. In Llama the library has the two the other way round.
        inverts_one_side: Whether a reversible change misses one of two embeddings there.
    """

    names: NameMap
    blocks: Mapping[str, str]
    joins: Mapping[str, str]
    attentions: Mapping[str, str]
    prefixes: Mapping[tuple[str, str], str]
    invertible: str = "invertible_adapters"
    intermediate: LinearName = "up"
    output: LinearName = "down"
    inverts_one_side: bool = False


BERT = HubArchitecture(
    names=bert.NAME_MAP,
    blocks={"encoder": "encoder.layer.{}"},
    joins={"attention": "attention.output", "feedforward": "output"},
    attentions={"attention": "attention.self"},
    prefixes={("encoder", "attention"): "self_prefix"},
)
LLAMA = HubArchitecture(
    names=llama.NAME_MAP,
    blocks={"decoder": "layers.{}"},
    joins={"attention": "attention_adapters", "feedforward": "output_adapters"},
    attentions={"attention": "self_attn"},
    prefixes={("decoder", "attention"): "self_prefix"},
    intermediate="down",
    output="up",
)
BART = HubArchitecture(
    names=seq2seq.NAME_MAP,
    blocks={"encoder": "encoder.layers.{}", "decoder": "decoder.layers.{}"},
    joins={
        "attention": "attention_adapters",
        "cross_attention": "cross_attention_adapters",
        "feedforward": "output_adapters",
    },
    attentions={"attention": "self_attn", "cross_attention": "encoder_attn"},
    prefixes={
        ("encoder", "attention"): "encoder_prefix",
        ("decoder", "attention"): "self_prefix",
        ("decoder", "cross_attention"): "cross_prefix",
    },
    inverts_one_side=True,
)

# By model_type: the library's class that keeps prediction heads beside the model, and what it calls the model.
MODEL_CLASSES = {
    "bert": ("BertAdapterModel", "bert"),
    "roberta": ("RobertaAdapterModel", "roberta"),
    "xlm-roberta": ("XLMRobertaAdapterModel", "roberta"),
    "llama": ("LlamaAdapterModel", "model"),
    "bart": ("BartAdapterModel", "model"),
}


def hub_architecture(model: Model) -> HubArchitecture:
    """The row of a model.

    Raises:
        ModelError: The library's names for it are not known here.
    """
    for kind, architecture in ((Bert, BERT), (Llama, LLAMA), (Seq2Seq, BART)):
        if isinstance(model, kind):
            return architecture
    raise ModelError(f"a {type(model).__name__} in AdapterHub's format", needed="a BERT, Llama or BART")
