"""One text, or two that are read together, as what each architecture reads.

An encoder reads ``[CLS] first [SEP] second [SEP]``. A decoder reads the same row, whose last token has seen all of
it. An encoder-decoder reads it on both sides, and its decoder's last token has seen it twice (Lewis et al. 2020, arXiv
1910.13461, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from cypher.data.batch import Inputs, pad_inputs
from cypher.hub.tokenizer import SpecialTokens


@dataclass(frozen=True, kw_only=True)
class TextSequence:
    """A row as token ids.

    Args:
        row: Place of its row in the list of rows.
        token_ids: Of the whole sequence, special tokens included.
        second_start: Index of the second text's first token; the length where there is none.
    """

    row: int
    token_ids: tuple[int, ...]
    second_start: int


class TextReader:
    """Texts to sequences and sequences to inputs.

    Args:
        tokenizer: Of the model, without truncation and padding.
        special: The ids it puts around texts.
        segments: Whether the model tells two texts apart by segment ids.
        with_source: Whether the model has an encoder beside its decoder.
        max_length: Tokens of a sequence, special tokens included.
    """

    def __init__(
        self, *, tokenizer: Tokenizer, special: SpecialTokens, segments: bool, with_source: bool, max_length: int
    ) -> None:
        self.tokenizer, self.special = tokenizer, special
        self.segments, self.with_source = segments, with_source
        self.max_length = max_length

    def read(self, first: str, second: str | None, *, row: int) -> TextSequence:
        """One sequence; of two texts the longer one is cut to its first tokens."""
        ids = [
            self.tokenizer.encode(text, add_special_tokens=False).ids for text in (first, second) if text is not None
        ]
        token_ids = [self.special.cls_id]
        room = self.max_length - len(ids) - 1
        if second is None:
            token_ids += [*ids[0][:room], self.special.sep_id]
            second_start = len(token_ids)
        else:
            n_first, n_second = kept_of_pair(len(ids[0]), len(ids[1]), room)
            token_ids += [*ids[0][:n_first], self.special.sep_id]
            second_start = len(token_ids)
            token_ids += [*ids[1][:n_second], self.special.sep_id]
        return TextSequence(row=row, token_ids=tuple(token_ids), second_start=second_start)

    def inputs(self, sequences: Sequence[TextSequence]) -> Inputs:
        """Sequences padded to the longest of them."""
        segments = None
        if self.segments:
            segments = [
                [int(place >= sequence.second_start) for place in range(len(sequence.token_ids))]
                for sequence in sequences
            ]
        token_ids = [sequence.token_ids for sequence in sequences]
        read = pad_inputs(token_ids, pad_id=self.special.pad_id, segment_ids=segments)
        if not self.with_source:
            return read
        return Inputs(token_ids=read.token_ids, attention_mask=read.attention_mask, source=read)


def kept_of_pair(n_first: int, n_second: int, room: int) -> tuple[int, int]:
    """Tokens kept of two texts: the longer one is cut, until both have half.

    Example:
        >>> kept_of_pair(9, 3, 8), kept_of_pair(9, 9, 8), kept_of_pair(2, 3, 8)
        ((5, 3), (4, 4), (2, 3))
    """
    kept_second = min(n_second, max(room - n_first, room // 2))
    return min(n_first, room - kept_second), kept_second
