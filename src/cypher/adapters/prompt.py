"""Prompt tuning: trained vectors in front of the tokens (Lester et al. 2021, arXiv 2104.08691, section 2)."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter
from cypher.adapters.places import plug_in
from cypher.config import PromptConfig
from cypher.errors import ConfigError
from cypher.layers.plugs import EmbeddingPlug
from cypher.models.model import Model


class PromptPlug(EmbeddingPlug):
    """Puts the same vectors in front of every row; every token may attend to them.

    Args:
        vectors: ``(length, width)``, what they start at.
    """

    at_beginning_only = True

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``length`` rows more in both."""
        vectors = self.vectors.to(hidden.dtype).expand(len(hidden), -1, -1)
        kept = mask.new_ones(len(mask), vectors.shape[1])
        return torch.cat([vectors, hidden], 1), torch.cat([kept, mask], 1)


class Prompt(Adapter):
    """Vectors in front of what the model reads first: of an encoder-decoder, in front of the source.

    Args:
        config: Length and what the vectors start at.
        tokenizer: Needed where they start at a text.
    """

    def __init__(self, config: PromptConfig, tokenizer: Tokenizer | None = None) -> None:
        self.config, self.tokenizer = config, tokenizer

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh vectors in; they change the model's function at once.

        Raises:
            ConfigError: The name is taken or no name at all, or the vectors cannot start as configured.
        """
        plug_in(model, name, [(model.embedding_sites[0].plugs, PromptPlug(self._start(model)))])

    def _start(self, model: Model) -> Tensor:
        config = self.config
        token_ids = list(config.token_ids)
        if config.text is not None:
            if self.tokenizer is None:
                raise ConfigError("adapter.text without a tokenizer", change="give adapter.token_ids")
            token_ids = self.tokenizer.encode(config.text, add_special_tokens=False).ids
        if not token_ids:
            return torch.empty(config.length, model.width).uniform_(-config.init_range, config.init_range)
        table = model.token_vectors()
        if max(token_ids) >= len(table):
            raise ConfigError(f"adapter.token_ids has {max(token_ids)}", needed=f"ids below {len(table)}")
        repeated = [token_ids[place % len(token_ids)] for place in range(config.length)]
        return table.detach()[repeated].float().clone()

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        return self.config.length * model.width
