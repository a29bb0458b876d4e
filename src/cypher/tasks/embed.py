"""Texts to unit vectors: the mean of a sentence encoder's token vectors (Sentence-BERT, arXiv 1908.10084)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cypher.config import InferencePrecision
from cypher.data.batch import batches_for_inference, pad_inputs
from cypher.data.batch_workers import each_batch
from cypher.layers.precision import fastest_precision
from cypher.models.load import LoadedModel

# Tokens of one batch, padding included: enough for the matrix units, few enough for the processor's cache, which
# the fp32 values between the products of int8 fill soonest.
BATCH_TOKENS = {"fp32": 1024, "bf16": 2048, "int8": 512}
# Fewer tokens than this are not worth a batch of their own.
SMALLEST_BATCH = 128


class Embedder:
    """Embeds texts with a loaded sentence encoder.

    Args:
        loaded: The encoder; its weights are laid out for inference and cannot be trained afterwards.
        max_tokens: Longer texts are cut, special tokens included; 256 is what all-MiniLM-L6-v2 was trained for.
        precision: Of the arithmetic; ``auto`` takes the faster of fp32 and bf16 on this machine.

    Raises:
        ConfigError: The precision has no kernel on this machine.

    Example:
        >>> from cypher.models.load import load_model
        >>> Embedder(load_model("minilm")).embed(["a text", "another"]).shape  # doctest: +SKIP
        (2, 384)
    """

    def __init__(self, loaded: LoadedModel, *, max_tokens: int = 256, precision: InferencePrecision = "auto") -> None:
        self.precision: InferencePrecision = fastest_precision() if precision == "auto" else precision
        self.loaded = loaded
        self.width = loaded.model.width
        self.max_tokens = max_tokens
        loaded.model.pack(self.precision)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: Any number of them.

        Returns:
            ``(len(texts), width)`` fp32, each row of length 1, in the order of ``texts``.
        """
        special = self.loaded.special
        room = self.max_tokens - 2
        encodings = self.loaded.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        token_ids = [[special.cls_id, *encoding.ids[:room], special.sep_id] for encoding in encodings]
        lengths = [len(ids) for ids in token_ids]
        vectors = np.empty((len(token_ids), self.width), dtype=np.float32)

        def embed_rows(rows: list[int]) -> None:
            inputs = pad_inputs([token_ids[row] for row in rows], pad_id=special.pad_id)
            encoded = self.loaded.model(inputs)
            mask = encoded.mask.unsqueeze(-1).float()
            # Sum over real tokens; its length is divided away by the normalisation.
            vectors[rows] = F.normalize((encoded.hidden.float() * mask).sum(1), dim=-1).numpy()

        # Few texts are shared out evenly rather than put into one batch.
        share = -(-sum(lengths) // torch.get_num_threads())
        batch_tokens = min(BATCH_TOKENS[self.precision], max(share, SMALLEST_BATCH))
        each_batch(embed_rows, batches_for_inference(lengths, batch_tokens=batch_tokens))
        return vectors
