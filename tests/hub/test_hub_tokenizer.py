from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from cypher.errors import ModelError
from cypher.hub import resolve
from cypher.hub.tokenizer import SpecialTokens, load_tokenizer, special_tokens


def write_tokenizer(folder: Path, tokens: list[str]) -> None:
    tokenizer = Tokenizer(WordLevel({token: n for n, token in enumerate(tokens)}, unk_token=tokens[0]))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_fixed_length_in_the_file_is_undone(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ["[UNK]", "a", "b"])
    assert load_tokenizer(tmp_path).encode("a b a b a").tokens == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize(
    ("tokens", "files", "expected"),
    [
        (["[PAD]", "[CLS]", "[SEP]", "[MASK]"], {}, (1, 2, 0, 3)),
        (["<s>", "<pad>", "</s>", "<mask>"], {}, (0, 2, 1, 3)),
        (["[PAD]", "[CLS]", "[SEP]"], {}, (1, 2, 0, None)),
        (
            ["<x>", "<y>", "<z>", "[MASK]", "[CLS]"],
            {
                "tokenizer_config.json": {"cls_token": "<x>", "pad_token": "<z>", "mask_token": None},
                "special_tokens_map.json": {"sep_token": {"content": "<y>", "lstrip": False}},
            },
            (0, 1, 2, 3),
        ),
    ],
    ids=["bert", "roberta", "no mask", "named in files"],
)
def test_special_tokens_are_found(
    tmp_path: Path, tokens: list[str], files: dict[str, object], expected: tuple[int, int, int, int | None]
) -> None:
    write_tokenizer(tmp_path, tokens)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    cls_id, sep_id, pad_id, mask_id = expected
    assert special_tokens(tmp_path) == SpecialTokens(cls_id=cls_id, sep_id=sep_id, pad_id=pad_id, mask_id=mask_id)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", "has no tokenizer.json: needs a fast tokenizer's file; write one"),
        ("tokenizer.json", "{", "cannot be read"),
        ("tokenizer.json", '{"version": "9"}', "cannot be read"),
        ("special_tokens_map.json", "{", "special_tokens_map.json cannot be read"),
        ("special_tokens_map.json", "[]", "holds a list"),
        ("special_tokens_map.json", '{"cls_token": "[NO]"}', "has no cls_token"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str | None, content: str, message: str) -> None:
    if name is not None:
        write_tokenizer(tmp_path, ["[PAD]", "[CLS]", "[SEP]"])
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        special_tokens(tmp_path)


@pytest.mark.real_weights
def test_minilm_speaks_bert() -> None:
    try:
        folder = resolve("minilm")
    except ModelError as error:
        pytest.skip(f"minilm is not here: {error}")
    assert special_tokens(folder) == SpecialTokens(cls_id=101, sep_id=102, pad_id=0, mask_id=103)
    assert len(load_tokenizer(folder).encode("word " * 300).ids) == 302
