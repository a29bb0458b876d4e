"""Llama and the decoders built like it (Touvron et al. 2023, arXiv 2302.13971, section 2.2; SmolLM2, arXiv 2502.02737).

The whole architecture, its configuration and the map between its names and those of published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from cypher.data.batch import Inputs
from cypher.errors import ModelError
from cypher.layers.attention import BlockContext, FullAttention, causal_mask
from cypher.layers.block import Block
from cypher.layers.divisible import Division
from cypher.layers.embedding import Embedding
from cypher.layers.feed_forward import GatedFeedForward
from cypher.layers.linear import Linear
from cypher.layers.norm import RmsNorm
from cypher.layers.rotary import Rotary
from cypher.layers.route import following
from cypher.layers.sites import EmbeddingSite, JoinSite
from cypher.layers.state import State
from cypher.layers.vocabulary_logits import VocabularyLogits
from cypher.models.model import Encoded, LanguageHead, Model
from cypher.models.name_map import NameMap
from cypher.models.stretch import Carried, SegmentParts

NAME_MAP = NameMap(
    {
        "token": "model.embed_tokens",
        "segments.decoder.{}.attention.query": "model.layers.{}.self_attn.q_proj",
        "segments.decoder.{}.attention.key": "model.layers.{}.self_attn.k_proj",
        "segments.decoder.{}.attention.value": "model.layers.{}.self_attn.v_proj",
        "segments.decoder.{}.attention.output": "model.layers.{}.self_attn.o_proj",
        "segments.decoder.{}.attention_join.norm": "model.layers.{}.input_layernorm",
        "segments.decoder.{}.feedforward.gate": "model.layers.{}.mlp.gate_proj",
        "segments.decoder.{}.feedforward.up": "model.layers.{}.mlp.up_proj",
        "segments.decoder.{}.feedforward.down": "model.layers.{}.mlp.down_proj",
        "segments.decoder.{}.feedforward_join.norm": "model.layers.{}.post_attention_layernorm",
        "norm": "model.norm",
        "output": "lm_head",
    }
)


class LlamaConfig(BaseModel):
    """Sizes of one Llama.

    Example:
        >>> sizes = {"n_layers": 1, "n_heads": 2, "n_key_value_heads": 1, "inner_width": 16}
        >>> LlamaConfig(vocabulary_size=100, width=8, **sizes).num_params()
        1400
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
    n_key_value_heads: int
    """Heads of keys and values, shared by groups of heads; must divide n_heads."""
    inner_width: int
    """Of the gated feed-forward."""
    max_positions: int = 2048
    """Tokens a row may have."""
    rotary_base: float = 10_000.0
    """The longest wavelength of the rotary positions is near 2 π times this, in tokens."""
    norm_epsilon: float = 1e-5
    """Added to the mean square in every norm."""
    is_tied: bool = True
    """Whether tokens are predicted by the token embedding itself."""
    dropout: float = 0.0
    """Share of updates set to zero in training."""
    attention_dropout: float = 0.0
    """Share of attention probabilities set to zero in training."""

    @classmethod
    def from_checkpoint(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """Read the sizes out of a checkpoint's ``config.json``.

        Raises:
            ModelError: It is of another family, or has parts this architecture does not have.
        """
        if config.get("model_type") != "llama":
            raise ModelError(f"model_type {config.get('model_type')!r}", needed="llama")
        try:
            rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
            for key, given, needed in (
                ("rope type", rotary.get("rope_type", rotary.get("type", "default")), "default"),
                ("attention_bias", bool(config.get("attention_bias")), False),
                ("mlp_bias", bool(config.get("mlp_bias")), False),
                ("hidden_act", config.get("hidden_act", "silu"), "silu"),
                ("head_dim", config.get("head_dim"), config["hidden_size"] // config["num_attention_heads"]),
            ):
                if given != needed and given is not None:
                    raise ModelError(f"{key} {given!r}", needed=f"{needed!r}")
            return cls(
                vocabulary_size=config["vocab_size"],
                width=config["hidden_size"],
                n_layers=config["num_hidden_layers"],
                n_heads=config["num_attention_heads"],
                n_key_value_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
                inner_width=config["intermediate_size"],
                max_positions=config["max_position_embeddings"],
                rotary_base=rotary.get("rope_theta") or config.get("rope_theta") or 10_000.0,
                norm_epsilon=config.get("rms_norm_eps", 1e-6),
                is_tied=config.get("tie_word_embeddings", False),
                attention_dropout=config.get("attention_dropout", 0.0),
            )
        except KeyError as error:
            raise ModelError(f"config.json without {error}", needed="the sizes of a Llama") from None

    def num_params(self) -> int:
        """Number of parameters, by formula."""
        narrow = self.n_key_value_heads * (self.width // self.n_heads)
        block = 2 * self.width * (self.width + narrow) + 3 * self.width * self.inner_width + 2 * self.width
        tables = self.vocabulary_size * self.width * (1 if self.is_tied else 2)
        return tables + self.n_layers * block + self.width


class LlamaLanguageHead(LanguageHead):
    """Logits of the next token, by the token embedding or the model's own output layer.

    Args:
        model: Owns the weights; they are not registered here again.
    """

    def __init__(self, model: Llama) -> None:
        super().__init__(model.vocabulary_size)
        self._model = (model,)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, seq, vocabulary)``."""
        (model,) = self._model
        hidden = encoded.scatter()
        if model.output is not None:
            logits: Tensor = model.output(hidden)
            return logits
        with following(encoded.route):
            hidden = model.embedding_output.inverse(hidden)
        return cast(Tensor, model.vocabulary_logits(hidden, model.token_vectors()))


class Llama(Model):
    """Decoder of pre-norm blocks with rotary positions and gated feed-forwards.

    Args:
        config: Sizes.

    Example:
        >>> import torch
        >>> sizes = {"n_layers": 1, "n_heads": 2, "n_key_value_heads": 1, "inner_width": 16}
        >>> model = Llama(LlamaConfig(vocabulary_size=100, width=8, **sizes)).eval()
        >>> token_ids = torch.tensor([[1, 2, 3]])
        >>> model(Inputs(token_ids=token_ids, attention_mask=token_ids > 0)).hidden.shape
        torch.Size([1, 3, 8])
    """

    remembers = ("decoder",)

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.vocabulary_size = config.vocabulary_size
        self.max_positions = config.max_positions
        self.token = Embedding(config.vocabulary_size, config.width)
        self.embedding_output = EmbeddingSite()
        self.rotary = Rotary(config.width // config.n_heads, base=config.rotary_base)
        blocks = {str(number): self._block(config) for number in range(config.n_layers)}
        self.segments = nn.ModuleDict({"decoder": nn.ModuleDict(blocks)})
        self.norm = RmsNorm(config.width, epsilon=config.norm_epsilon)
        self.output = None if config.is_tied else Linear(config.width, config.vocabulary_size, bias=False)
        self.language_parts = ("token", "embedding_output", "vocabulary_logits") if config.is_tied else ("output",)
        self.vocabulary_logits = VocabularyLogits()

    @staticmethod
    def _block(config: LlamaConfig) -> Block:
        def join() -> JoinSite:
            return JoinSite(RmsNorm(config.width, epsilon=config.norm_epsilon), style="pre", dropout=config.dropout)

        return Block(
            attention=FullAttention(
                width=config.width,
                n_heads=config.n_heads,
                n_key_value_heads=config.n_key_value_heads,
                bias=False,
                dropout=config.attention_dropout,
            ),
            attention_join=join(),
            feedforward=GatedFeedForward(width=config.width, inner_width=config.inner_width),
            feedforward_join=join(),
        )

    def token_vectors(self) -> Tensor:
        """The table that token ids are looked up in, ``(vocabulary, width)``."""
        return self.token.weight

    def segment_parts(self, segment: str) -> SegmentParts:
        """The token table before the first block, the norm behind the last."""
        return SegmentParts(entering=("token", "embedding_output"), leaving=("norm",))

    def embed(self, segment: str, inputs: Inputs, before: Carried | None, state: State | None) -> Carried:
        """Embeddings; arguments as in :class:`Model`.

        Raises:
            ModelError: A row has more tokens than the model has positions.
        """
        written = 0 if state is None else state.length
        hidden, mask = self.embedding_output(self.token(inputs.token_ids), inputs.attention_mask, beginning=not written)
        if written + hidden.shape[1] > self.config.max_positions:
            raise ModelError(
                f"{written + hidden.shape[1]} tokens in a row",
                needed=f"at most {self.config.max_positions} for this model",
            )
        return Carried(hidden=hidden, mask=mask)

    def context(
        self, segment: str, inputs: Inputs, carried: Carried, state: State | None, *, scores: bool
    ) -> BlockContext:
        """Rotary table and causal mask; arguments as in :class:`Model`.

        Raises:
            ModelError: The state has no room for as many tokens.
        """
        written, mask = 0 if state is None else state.length, carried.mask
        # Positions count real tokens, so padding on either side moves nobody.
        positions = (mask.long().cumsum(1) - 1).clamp(min=0) if inputs.positions is None else inputs.positions
        visible, queries = mask, mask.shape[1]
        if state is not None:
            state.begin_step(mask)
            assert state.mask is not None and state.next_position is not None  # noqa: PT018
            positions = positions + state.next_position.unsqueeze(1)
            visible = state.mask[:, : written + queries]
        return BlockContext(
            attention_mask=mask,
            mask=causal_mask(visible, queries=queries),
            rotary=self.rotary(positions),
            seen=None if state is None else visible,
            written=written,
            capacity=0 if state is None else state.capacity,
            scores=scores,
        )

    def leave(self, segment: str, hidden: Tensor) -> Tensor:
        """The last norm: blocks norm what they read, so nothing has normed what the last one made."""
        normed: Tensor = self.norm(hidden)
        return normed

    def tensor_plan(self) -> dict[str, Division]:
        """As in :class:`Model`; tables and logits follow the vocabulary."""
        return super().tensor_plan() | {
            "token": "vocabulary",
            "embedding_output": "replicate",
            "norm": "replicate",
            "output": "vocabulary",
        }

    def language_head(self) -> LlamaLanguageHead:
        """Logits of the next token."""
        return LlamaLanguageHead(self)
