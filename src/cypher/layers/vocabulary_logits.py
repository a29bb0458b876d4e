"""Hidden states compared with every token's vector."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class VocabularyLogits(nn.Module):
    """The product of hidden states with a table of token vectors that belongs to somebody else.

    It has no weights, so that a table may be tied; it is a module, so that hooks reach the product.

    Example:
        >>> import torch
        >>> VocabularyLogits()(torch.ones(1, 3, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))[0, 0].tolist()
        [3.0, 7.0]
    """

    def forward(self, hidden: Tensor, vectors: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(…, vocabulary)`` in the type of ``hidden``.

        Args:
            hidden: ``(…, width)``.
            vectors: ``(vocabulary, width)``.
            bias: ``(vocabulary,)``.
        """
        return F.linear(hidden, vectors.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))
