"""The plain encoder-decoder (Vaswani et al. 2017, arXiv 1706.03762, section 3), pre- or post-norm.

The whole architecture, its configuration and the map between its names and those of the BART family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from cypher.data.batch import Inputs
from cypher.errors import ModelError
from cypher.layers.attention import BlockContext, FullAttention, causal_mask, key_mask
from cypher.layers.block import Block
from cypher.layers.cross_attention import CrossAttention
from cypher.layers.divisible import Division
from cypher.layers.embedding import Embedding
from cypher.layers.feed_forward import Activation, FeedForward
from cypher.layers.positions import LearnedPositions, SinusoidalPositions
from cypher.layers.route import following
from cypher.layers.row_attention import row_lengths
from cypher.layers.sites import EmbeddingSite, JoinSite
from cypher.layers.state import State
from cypher.layers.vocabulary_logits import VocabularyLogits
from cypher.models.model import Encoded, LanguageHead, Model
from cypher.models.name_map import NameMap
from cypher.models.stretch import Carried, SegmentParts


def _names() -> dict[str, str]:
    table = {"token": "model.shared"}
    for segment in ("encoder", "decoder"):
        ours, theirs = f"segments.{segment}.{{}}", f"model.{segment}.layers.{{}}"
        attentions = {"attention": "self_attn", "cross_attention": "encoder_attn"}
        for mine, other in list(attentions.items())[: 1 if segment == "encoder" else 2]:
            for part, name in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "out")):
                table[f"{ours}.{mine}.{part}"] = f"{theirs}.{other}.{name}_proj"
            table[f"{ours}.{mine}_join.norm"] = f"{theirs}.{other}_layer_norm"
        table[f"{ours}.feedforward.up"] = f"{theirs}.fc1"
        table[f"{ours}.feedforward.down"] = f"{theirs}.fc2"
        table[f"{ours}.feedforward_join.norm"] = f"{theirs}.final_layer_norm"
        table[f"embeddings.{segment}.positions.table"] = f"model.{segment}.embed_positions"
        table[f"embeddings.{segment}.norm"] = f"model.{segment}.layernorm_embedding"
        table[f"norms.{segment}"] = f"model.{segment}.layer_norm"
    return table


NAME_MAP = NameMap(_names())


class Seq2SeqConfig(BaseModel):
    """Sizes of one encoder-decoder.

    Example:
        >>> sizes = {"n_encoder_layers": 1, "n_decoder_layers": 1, "n_heads": 2, "inner_width": 16}
        >>> Seq2SeqConfig(vocabulary_size=100, width=8, **sizes).num_params()
        2304
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    vocabulary_size: int
    """Rows of the token embedding that both sides and the prediction share."""
    source_vocabulary_size: int | None = None
    """Rows of the source's own token embedding; null shares the target's."""
    width: int
    """Of the hidden states."""
    n_encoder_layers: int
    """Blocks that read the source."""
    n_decoder_layers: int
    """Blocks that write the target."""
    n_heads: int
    """Attention heads; must divide width."""
    inner_width: int
    """Of the feed-forward."""
    style: Literal["pre", "post"] = "post"
    """Whether a block norms what it reads (with one norm more behind the last block) or what it has added up."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """Where positions come from."""
    max_positions: int = 1024
    """Tokens a row may have."""
    position_offset: int = 0
    """Rows of a learned table before position 0."""
    with_scaled_embedding: bool = True
    """Whether token vectors are multiplied by the square root of width."""
    with_embedding_norm: bool = False
    """Whether embeddings are normed before the first block."""
    activation: Activation = "relu"
    """Of the feed-forward."""
    norm_epsilon: float = 1e-5
    """Added to the variance in every norm."""
    dropout: float = 0.0
    """Share of updates and embeddings set to zero in training."""
    attention_dropout: float = 0.0
    """Share of attention probabilities set to zero in training."""

    @classmethod
    def from_checkpoint(cls, config: Mapping[str, Any]) -> Seq2SeqConfig:
        """Read the sizes out of a ``config.json`` of the BART family.

        Raises:
            ModelError: It is of another family, or its two sides differ in what is one number here.
        """
        families = {"marian": ("sinusoidal", "post", False), "bart": ("learned", "post", True),
                    "mbart": ("learned", "pre", True), "pegasus": ("sinusoidal", "pre", False)}  # fmt: skip
        if config.get("model_type") not in families:
            raise ModelError(f"model_type {config.get('model_type')!r}", needed=f"one of {', '.join(families)}")
        positions, style, with_embedding_norm = families[config["model_type"]]
        for part in ("attention_heads", "ffn_dim"):
            if config[f"encoder_{part}"] != config[f"decoder_{part}"]:
                raise ModelError(
                    f"encoder_{part} {config[f'encoder_{part}']} and decoder_{part} {config[f'decoder_{part}']}",
                    needed="the same on both sides",
                )
        return cls(
            vocabulary_size=config["vocab_size"],
            width=config["d_model"],
            n_encoder_layers=config["encoder_layers"],
            n_decoder_layers=config["decoder_layers"],
            n_heads=config["encoder_attention_heads"],
            inner_width=config["encoder_ffn_dim"],
            style=style,
            positions=positions,
            max_positions=config["max_position_embeddings"],
            position_offset=2 if positions == "learned" else 0,
            with_scaled_embedding=config.get("scale_embedding", False),
            with_embedding_norm=with_embedding_norm,
            activation=config.get("activation_function", "gelu"),
            dropout=config.get("dropout", 0.0),
            attention_dropout=config.get("attention_dropout", 0.0),
        )

    def num_params(self) -> int:
        """Number of parameters, by formula."""
        attention = 4 * (self.width * self.width + self.width)
        feedforward = 2 * self.width * self.inner_width + self.inner_width + self.width
        norm = 2 * self.width
        encoder = attention + feedforward + 2 * norm
        decoder = 2 * attention + feedforward + 3 * norm
        positions = (self.max_positions + self.position_offset) * self.width if self.positions == "learned" else 0
        around = positions + norm * (self.with_embedding_norm + (self.style == "pre"))
        tables = (self.vocabulary_size + (self.source_vocabulary_size or 0)) * self.width
        return tables + self.n_encoder_layers * encoder + self.n_decoder_layers * decoder + 2 * around


class Seq2SeqEmbeddings(nn.Module):
    """What a side adds to its token vectors: a scale, positions, a norm.

    Args:
        config: Sizes.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.width) if config.with_scaled_embedding else 1.0
        self.positions: nn.Module = SinusoidalPositions(config.width)
        if config.positions == "learned":
            self.positions = LearnedPositions(config.max_positions, config.width, offset=config.position_offset)
        self.norm: nn.Module = nn.Identity()
        if config.with_embedding_norm:
            self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """``(batch, seq, width)`` and ``(batch, seq)`` int64 to ``(batch, seq, width)``."""
        hidden: Tensor = self.dropout(self.norm(vectors * self.scale + self.positions(positions)))
        return hidden


class Seq2SeqLanguageHead(LanguageHead):
    """Logits of the next target token, by the target's token embedding.

    Args:
        model: Owns the weights; they are not registered here again.
    """

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__(model.vocabulary_size)
        self._model = (model,)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, seq, vocabulary)``."""
        (model,) = self._model
        with following(encoded.route):
            hidden = model.embedding_output.inverse(encoded.scatter())
        return cast(Tensor, model.vocabulary_logits(hidden, model.token_vectors()))


class Seq2Seq(Model):
    """An encoder of ``inputs.source`` and a decoder of what is said about it.

    Args:
        config: Sizes.

    Example:
        >>> import torch
        >>> sizes = {"n_encoder_layers": 1, "n_decoder_layers": 1, "n_heads": 2, "inner_width": 16}
        >>> model = Seq2Seq(Seq2SeqConfig(vocabulary_size=100, width=8, **sizes)).eval()
        >>> ids = torch.tensor([[1, 2, 3]])
        >>> source = Inputs(token_ids=ids, attention_mask=ids > 0)
        >>> model(Inputs(token_ids=ids[:, :2], attention_mask=ids[:, :2] > 0, source=source)).hidden.shape
        torch.Size([1, 2, 8])
    """

    remembers = ("decoder",)
    sources = ("decoder",)
    language_parts = ("token", "embedding_output", "vocabulary_logits")

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.vocabulary_size = config.vocabulary_size
        self.max_positions = config.max_positions
        self.token = Embedding(config.vocabulary_size, config.width)
        self.source_token = None
        if config.source_vocabulary_size is not None:
            self.source_token = Embedding(config.source_vocabulary_size, config.width)
        self.embeddings = nn.ModuleDict({side: Seq2SeqEmbeddings(config) for side in ("encoder", "decoder")})
        self.embedding_output = EmbeddingSite()
        self.source_embedding_output = EmbeddingSite()
        self.segments = nn.ModuleDict(
            {
                "encoder": nn.ModuleDict({str(n): self._block(config) for n in range(config.n_encoder_layers)}),
                "decoder": nn.ModuleDict(
                    {str(n): self._block(config, with_source=True) for n in range(config.n_decoder_layers)}
                ),
            }
        )
        # Blocks that norm what they read leave what the last one made without a norm.
        self.norms = nn.ModuleDict()
        if config.style == "pre":
            for side in ("encoder", "decoder"):
                self.norms[side] = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.vocabulary_logits = VocabularyLogits()

    @staticmethod
    def _block(config: Seq2SeqConfig, *, with_source: bool = False) -> Block:
        def join() -> JoinSite:
            norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
            return JoinSite(norm, style=config.style, dropout=config.dropout)

        def attention(kind: type[FullAttention]) -> FullAttention:
            return kind(width=config.width, n_heads=config.n_heads, dropout=config.attention_dropout)

        return Block(
            attention=attention(FullAttention),
            attention_join=join(),
            cross_attention=attention(CrossAttention) if with_source else None,
            cross_attention_join=join() if with_source else None,
            feedforward=FeedForward(width=config.width, inner_width=config.inner_width, activation=config.activation),
            feedforward_join=join(),
        )

    @property
    def embedding_sites(self) -> tuple[EmbeddingSite, ...]:
        """The encoder's and the decoder's."""
        return (self.source_embedding_output, self.embedding_output)

    def token_vectors(self) -> Tensor:
        """The table that target token ids are looked up in, ``(vocabulary, width)``."""
        return self.token.weight

    def segment_parts(self, segment: str) -> SegmentParts:
        """A side's table, positions and norms; the table of both sides is one where the source has none of its own."""
        is_source = segment == "encoder"
        table = "source_token" if is_source and self.source_token is not None else "token"
        site = "source_embedding_output" if is_source else "embedding_output"
        leaving = (f"norms.{segment}",) if segment in self.norms else ()
        return SegmentParts(entering=(table, f"embeddings.{segment}", site), leaving=leaving)

    def segment_inputs(self, segment: str, inputs: Inputs) -> Inputs:
        """The source, or the target.

        Raises:
            ModelError: There is no source.
        """
        if segment != "encoder":
            return inputs
        if inputs.source is None:
            raise ModelError("rows without a source", needed="inputs.source, which the encoder reads")
        return inputs.source

    def embed(self, segment: str, inputs: Inputs, before: Carried | None, state: State | None) -> Carried:
        """Embeddings of the source, then of the target beside what the encoder made; arguments as in :class:`Model`.

        Raises:
            ModelError: There is no source, or a row has more tokens than the model has positions.
        """
        if segment == "encoder":
            source, table = self.segment_inputs(segment, inputs), self.source_token or self.token
            hidden = self._embedded(segment, table(source.token_ids), source.positions, written=0)
            hidden, mask = self.source_embedding_output(hidden, source.attention_mask)
            return Carried(hidden=hidden, mask=mask)
        written = 0 if state is None else state.length
        hidden = self._embedded(segment, self.token(inputs.token_ids), inputs.positions, written=written)
        hidden, mask = self.embedding_output(hidden, inputs.attention_mask, beginning=not written)
        if before is not None:
            made, made_mask = before.hidden, before.mask
            if state is not None:
                state.source, state.source_mask = made, made_mask
        else:
            assert state is not None and state.source is not None, "the encoder runs first"  # noqa: PT018
            assert state.source_mask is not None
            made, made_mask = state.source, state.source_mask
        return Carried(hidden=hidden, mask=mask, source=made, source_mask=made_mask)

    def context(
        self, segment: str, inputs: Inputs, carried: Carried, state: State | None, *, scores: bool
    ) -> BlockContext:
        """Masks of the source, or of the target and the source; arguments as in :class:`Model`.

        Raises:
            ModelError: The state has no room for as many tokens.
        """
        mask = carried.mask
        if segment == "encoder":
            return BlockContext(attention_mask=mask, mask=key_mask(mask), lengths=row_lengths(mask), scores=scores)
        assert carried.source is not None and carried.source_mask is not None, "the encoder runs first"  # noqa: PT018
        written, visible, queries = 0 if state is None else state.length, mask, mask.shape[1]
        if state is not None:
            state.begin_step(mask)
            assert state.mask is not None
            visible = state.mask[:, : written + queries]
        return BlockContext(
            attention_mask=mask,
            mask=causal_mask(visible, queries=queries),
            source=carried.source,
            source_mask=key_mask(carried.source_mask),
            seen=None if state is None else visible,
            written=written,
            capacity=0 if state is None else state.capacity,
            scores=scores,
        )

    def _embedded(self, segment: str, vectors: Tensor, positions: Tensor | None, *, written: int) -> Tensor:
        seq = vectors.shape[1]
        if written + seq > self.config.max_positions:
            raise ModelError(
                f"{written + seq} tokens in a row", needed=f"at most {self.config.max_positions} for this model"
            )
        if positions is None:
            positions = torch.arange(written, written + seq, device=vectors.device).unsqueeze(0)
        embedded: Tensor = self.embeddings[segment](vectors, positions)
        return embedded.to(self.compute_dtype)  # sinusoidal positions are fp32

    def leave(self, segment: str, hidden: Tensor) -> Tensor:
        """The last norm of a side whose blocks norm what they read."""
        return cast(Tensor, self.norms[segment](hidden)) if segment in self.norms else hidden

    def tensor_plan(self) -> dict[str, Division]:
        """As in :class:`Model`; tables and logits follow the vocabulary."""
        return super().tensor_plan() | {
            "token": "vocabulary",
            "source_token": "vocabulary",
            "embeddings": "replicate",
            "embedding_output": "replicate",
            "source_embedding_output": "replicate",
            "norms": "replicate",
        }

    def language_head(self) -> Seq2SeqLanguageHead:
        """Logits of the next target token."""
        return Seq2SeqLanguageHead(self)
