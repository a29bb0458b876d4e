"""A model folder's ``tokenizer.json``, and the ids of its special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cypher.errors import ModelError
from cypher.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids an encoder needs around and inside its text.

    Args:
        cls_id: Opens a sequence.
        sep_id: Closes a segment.
        pad_id: Fills a batch; masked out everywhere.
        mask_id: Stands for a hidden token; ``None`` when the model was trained without.
    """

    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int | None


# Where no file names them: the tokens of BERT's vocabulary and of RoBERTa's.
_USUAL = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
}

# Decoders start and end a text with tokens of their own; padding is masked out, so any token fills.
_INSTEAD = {"cls_token": ("bos_token", "eos_token"), "sep_token": ("eos_token",), "pad_token": ("eos_token",)}


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder with truncation and padding off, so that lengths are the text's own.

    (all-MiniLM-L6-v2 ships with both fixed at 128 tokens, which would cut passages in silence.)

    Raises:
        ModelError: No ``tokenizer.json``, or one this version of ``tokenizers`` cannot read.

    Example:
        >>> from cypher.hub import resolve
        >>> load_tokenizer(resolve("minilm")).encode("two words").tokens  # doctest: +SKIP
        ['[CLS]', 'two', 'words', '[SEP]']
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json",
            needed="a fast tokenizer's file",
            change="write one with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        reason = str(error).strip() or type(error).__name__
        raise ModelError(f"{path} cannot be read ({reason})", change="fetch it again, or upgrade tokenizers") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def special_tokens(folder: Path) -> SpecialTokens:
    """Ids of the special tokens, named by ``special_tokens_map.json`` or ``tokenizer_config.json``.

    Raises:
        ModelError: There is no token to open, to close or to pad a sequence.
    """
    tokenizer = load_tokenizer(folder)
    named = _read(folder / "tokenizer_config.json") | _read(folder / "special_tokens_map.json")
    ids: dict[str, int | None] = {}
    for role, usual in _USUAL.items():
        token = next((named[name] for name in (role, *_INSTEAD.get(role, ())) if named.get(name)), None)
        if isinstance(token, dict):
            token = token.get("content")
        candidates = (token,) if isinstance(token, str) else usual
        found = (tokenizer.token_to_id(candidate) for candidate in candidates)
        ids[role] = next((token_id for token_id in found if token_id is not None), None)
    cls_id, sep_id, pad_id = ids["cls_token"], ids["sep_token"], ids["pad_token"]
    if cls_id is None or sep_id is None or pad_id is None:
        missing = [role for role in ("cls_token", "sep_token", "pad_token") if ids[role] is None]
        raise ModelError(
            f"the tokenizer of {folder} has no {', '.join(missing)}",
            needed="tokens that open, close and pad a sequence",
            change="name them in special_tokens_map.json",
        )
    return SpecialTokens(cls_id=cls_id, sep_id=sep_id, pad_id=pad_id, mask_id=ids["mask_token"])


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, kind=ModelError) if path.is_file() else {}
