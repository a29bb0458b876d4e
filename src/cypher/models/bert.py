"""BERT and its family (Devlin et al. 2019, arXiv 1810.04805; Liu et al. 2019, arXiv 1907.11692).

The whole architecture, its configuration and the map between its names and those of published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from cypher.data.batch import Inputs
from cypher.errors import ModelError
from cypher.layers.attention import BlockContext, FullAttention, group_mask, key_mask
from cypher.layers.block import Block
from cypher.layers.divisible import Division
from cypher.layers.embedding import Embedding
from cypher.layers.feed_forward import ACTIVATIONS, Activation, FeedForward
from cypher.layers.linear import Linear
from cypher.layers.route import following
from cypher.layers.row_attention import row_lengths
from cypher.layers.sites import EmbeddingSite, JoinSite
from cypher.layers.state import State
from cypher.layers.vocabulary_logits import VocabularyLogits
from cypher.models.model import Encoded, LanguageHead, Model
from cypher.models.name_map import NameMap
from cypher.models.stretch import Carried, SegmentParts

NAME_MAP = NameMap(
    {
        "embeddings.token": "embeddings.word_embeddings",
        "embeddings.position": "embeddings.position_embeddings",
        "embeddings.segment": "embeddings.token_type_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
        "segments.encoder.{}.attention.query": "encoder.layer.{}.attention.self.query",
        "segments.encoder.{}.attention.key": "encoder.layer.{}.attention.self.key",
        "segments.encoder.{}.attention.value": "encoder.layer.{}.attention.self.value",
        "segments.encoder.{}.attention.output": "encoder.layer.{}.attention.output.dense",
        "segments.encoder.{}.attention_join.norm": "encoder.layer.{}.attention.output.LayerNorm",
        "segments.encoder.{}.feedforward.up": "encoder.layer.{}.intermediate.dense",
        "segments.encoder.{}.feedforward.down": "encoder.layer.{}.output.dense",
        "segments.encoder.{}.feedforward_join.norm": "encoder.layer.{}.output.LayerNorm",
        "pooler": "pooler.dense",
        "prediction.dense": "cls.predictions.transform.dense",
        "prediction.norm": "cls.predictions.transform.LayerNorm",
        "prediction": "cls.predictions",
    },
    prefixes=("bert.", "roberta."),
    # Checkpoints converted from TensorFlow name the two parameters of a norm otherwise.
    spellings={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)

ACTIVATION_NAMES: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}


class BertConfig(BaseModel):
    """Sizes of one BERT.

    Example:
        >>> BertConfig(vocabulary_size=100, width=8, n_layers=1, n_heads=2, inner_width=16).num_params()
        5600
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    vocabulary_size: int
    """Rows of the token embedding."""
    width: int
    """Of the hidden states."""
    n_layers: int
    """Blocks."""
    n_heads: int
    """Attention heads; must divide width."""
    inner_width: int
    """Of the feed-forward."""
    max_positions: int = 512
    """Tokens a row may have."""
    position_offset: int = 0
    """Rows of the position embedding before position 0 (RoBERTa keeps two, for padding)."""
    n_segments: int = 2
    """Rows of the segment embedding."""
    pad_id: int = 0
    """Token of padding."""
    norm_epsilon: float = 1e-12
    """Added to the variance in every norm."""
    activation: Activation = "gelu"
    """Of the feed-forward."""
    dropout: float = 0.1
    """Share of updates and embeddings set to zero in training."""
    attention_dropout: float = 0.1
    """Share of attention probabilities set to zero in training."""
    with_pooler: bool = True
    """Whether a dense layer over the first token is part of the weights."""
    with_prediction: bool = False
    """Whether the head of masked language modelling is part of the weights."""

    @classmethod
    def from_checkpoint(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read the sizes out of a checkpoint's ``config.json``.

        Raises:
            ModelError: It is of another family or uses positions this architecture does not have.
        """
        family = config.get("model_type", "bert")
        if family not in ("bert", "roberta", "xlm-roberta"):
            raise ModelError(f"model_type {family!r}", needed="bert, roberta or xlm-roberta")
        positions = config.get("position_embedding_type", "absolute")
        if positions != "absolute":
            raise ModelError(f"position_embedding_type {positions!r}", needed="absolute")
        activation = config.get("hidden_act", "gelu")
        if activation not in ACTIVATION_NAMES:
            raise ModelError(f"hidden_act {activation!r}", needed=f"one of {', '.join(ACTIVATION_NAMES)}")
        pad_id = config.get("pad_token_id") or 0
        offset = 0 if family == "bert" else pad_id + 1
        try:
            return cls(
                vocabulary_size=config["vocab_size"],
                width=config["hidden_size"],
                n_layers=config["num_hidden_layers"],
                n_heads=config["num_attention_heads"],
                inner_width=config["intermediate_size"],
                max_positions=config["max_position_embeddings"] - offset,
                position_offset=offset,
                n_segments=config.get("type_vocab_size", 2),
                pad_id=pad_id,
                norm_epsilon=config.get("layer_norm_eps", 1e-12),
                activation=ACTIVATION_NAMES[activation],
                dropout=config.get("hidden_dropout_prob", 0.1),
                attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
            )
        except KeyError as error:
            raise ModelError(f"config.json without {error}", needed="the sizes of a BERT") from None

    def num_params(self) -> int:
        """Number of parameters, by formula."""
        rows = self.vocabulary_size + self.max_positions + self.position_offset + self.n_segments
        attention = 4 * (self.width * self.width + self.width)
        feedforward = 2 * self.width * self.inner_width + self.inner_width + self.width
        norms = 4 * self.width
        pooler = self.width * self.width + self.width if self.with_pooler else 0
        prediction = self.width * self.width + 3 * self.width + self.vocabulary_size if self.with_prediction else 0
        blocks = self.n_layers * (attention + feedforward + norms)
        return rows * self.width + 2 * self.width + blocks + pooler + prediction


class BertEmbeddings(nn.Module):
    """Token, position and segment vectors, added and normed.

    Args:
        config: Sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.token = Embedding(config.vocabulary_size, config.width)
        self.position = Embedding(config.max_positions + config.position_offset, config.width)
        self.segment = Embedding(config.n_segments, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        self.position_offset = config.position_offset

    def forward(self, inputs: Inputs) -> Tensor:
        """``(batch, seq, width)``."""
        seq = inputs.token_ids.shape[1]
        if inputs.positions is None:
            position = self.position.weight[self.position_offset : self.position_offset + seq]
        else:
            position = self.position(inputs.positions + self.position_offset)
        segment = self.segment.weight[0] if inputs.segment_ids is None else self.segment(inputs.segment_ids)
        hidden: Tensor = self.dropout(self.norm(self.token(inputs.token_ids) + position + segment))
        return hidden


class BertPrediction(nn.Module):
    """What a hidden state passes before it is compared with every token's vector.

    Args:
        config: Sizes.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """``(rows, seq, width)`` in and out."""
        return cast(Tensor, self.norm(self.activation(self.dense(hidden))))


class BertLanguageHead(LanguageHead):
    """Logits of the masked tokens, by the token embedding itself.

    Args:
        prediction: The model's own transform; a part of the model, so it is not registered here again.
        model: Owns the embedding.
    """

    def __init__(self, prediction: BertPrediction, model: Bert) -> None:
        super().__init__(model.vocabulary_size)
        self._model = (model, prediction)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, seq, vocabulary)``."""
        model, prediction = self._model
        with following(encoded.route):
            hidden = model.embedding_output.inverse(prediction(encoded.scatter()))
        return cast(Tensor, model.vocabulary_logits(hidden, model.token_vectors(), prediction.bias))


class Bert(Model):
    """Encoder of post-norm blocks with learned positions.

    Args:
        config: Sizes.

    Example:
        >>> config = BertConfig(vocabulary_size=100, width=8, n_layers=1, n_heads=2, inner_width=16)
        >>> token_ids = torch.tensor([[1, 2, 3]])
        >>> Bert(config).eval()(Inputs(token_ids=token_ids, attention_mask=token_ids > 0)).hidden.shape
        torch.Size([1, 3, 8])
    """

    takes_groups = True
    language_parts = ("embeddings.token", "embedding_output", "prediction", "vocabulary_logits")

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.vocabulary_size = config.vocabulary_size
        self.max_positions = config.max_positions
        self.embeddings = BertEmbeddings(config)
        self.embedding_output = EmbeddingSite()
        blocks = {str(number): self._block(config) for number in range(config.n_layers)}
        self.segments = nn.ModuleDict({"encoder": nn.ModuleDict(blocks)})
        self.pooler = Linear(config.width, config.width) if config.with_pooler else None
        self.prediction = BertPrediction(config) if config.with_prediction else None
        self.vocabulary_logits = VocabularyLogits()

    @staticmethod
    def _block(config: BertConfig) -> Block:
        def join() -> JoinSite:
            return JoinSite(nn.LayerNorm(config.width, eps=config.norm_epsilon), dropout=config.dropout)

        return Block(
            attention=FullAttention(width=config.width, n_heads=config.n_heads, dropout=config.attention_dropout),
            attention_join=join(),
            feedforward=FeedForward(width=config.width, inner_width=config.inner_width, activation=config.activation),
            feedforward_join=join(),
        )

    def token_vectors(self) -> Tensor:
        """The table that token ids are looked up in, ``(vocabulary, width)``."""
        return self.embeddings.token.weight

    def segment_parts(self, segment: str) -> SegmentParts:
        """The embeddings."""
        return SegmentParts(entering=("embeddings", "embedding_output"))

    def embed(self, segment: str, inputs: Inputs, before: Carried | None, state: State | None) -> Carried:
        """Embeddings; arguments as in :class:`Model`.

        Raises:
            ModelError: A row has more tokens than the model has positions.
        """
        seq = inputs.token_ids.shape[1]
        if inputs.positions is not None:
            seq = int(inputs.positions.max()) + 1
        if seq > self.config.max_positions:
            raise ModelError(f"{seq} tokens in a row", needed=f"at most {self.config.max_positions} for this model")
        hidden, mask = self.embedding_output(self.embeddings(inputs), inputs.attention_mask)
        return Carried(hidden=hidden, mask=mask)

    def context(
        self, segment: str, inputs: Inputs, carried: Carried, state: State | None, *, scores: bool
    ) -> BlockContext:
        """A mask, which is dropped altogether when nothing is padded; arguments as in :class:`Model`."""
        mask = carried.mask
        if inputs.groups is not None:
            # What is put in front of the tokens is shared by all groups.
            groups = F.pad(inputs.groups, (mask.shape[1] - inputs.groups.shape[1], 0))
            return BlockContext(attention_mask=mask, mask=group_mask(mask, groups), scores=scores)
        return BlockContext(attention_mask=mask, mask=key_mask(mask), lengths=row_lengths(mask), scores=scores)

    def tensor_plan(self) -> dict[str, Division]:
        """As in :class:`Model`; tables and logits follow the vocabulary."""
        return super().tensor_plan() | {
            "embeddings": "replicate",
            "embeddings.token": "vocabulary",
            "embedding_output": "replicate",
            "pooler": "replicate",
            "prediction": "replicate",
            "prediction.bias": "vocabulary",
        }

    def language_head(self) -> BertLanguageHead:
        """The head of masked language modelling, tied to the token embedding.

        Raises:
            ModelError: The weights have no such head.
        """
        if self.prediction is None:
            raise ModelError(
                "these weights have no head that predicts tokens", change="set with_prediction to train a fresh one"
            )
        return BertLanguageHead(self.prediction, self)

    def pooled(self, encoded: Encoded) -> Tensor:
        """The first token through the pooler, ``(rows, width)``.

        Raises:
            ModelError: The weights have no pooler.
        """
        if self.pooler is None:
            raise ModelError("this model has no pooler", change="pool the hidden states instead")
        return torch.tanh(self.pooler(encoded.hidden[:, 0]))
