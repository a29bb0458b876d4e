"""A tiny encoder with random weights, and folders of text: the parts that tests of the store share."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from cypher.apps.qa.store import PassageStore
from cypher.apps.qa.store_settings import embedder_identity
from cypher.hub.weights import write_safetensors
from cypher.models.bert import NAME_MAP, Bert, BertConfig
from cypher.models.load import load_model
from cypher.tasks.embed import Embedder

WIDTH = 16
WORDS = [
    *("apple", "river", "stone", "cloud", "engine", "music", "garden", "winter", "copper", "bridge"),
    *("letter", "forest", "silver", "window", "harbour", "candle", "thunder", "meadow", "pencil", "rocket"),
    *("saddle", "temple", "violet", "walnut", "zebra", "anchor", "basket", "castle", "desert", "eagle"),
]
HERE = Path(__file__).parent


def tiny_embedder(folder: Path, *, seed: int = 0) -> Embedder:
    """An encoder of one layer over the thirty words; another seed is another model."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: number for number, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocabulary_size=len(vocabulary), width=WIDTH, n_layers=1, n_heads=2, inner_width=32, max_positions=256
    )
    torch.manual_seed(seed)
    model = Bert(config.model_copy(update={"with_pooler": False}))
    # Norms stay as they are: random ones would shift all texts to nearly the same vector.
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    state = {str(NAME_MAP.to_theirs(name)): tensor for name, tensor in model.state_dict().items()}
    write_safetensors(folder / "model.safetensors", state)
    sizes = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 256,
        "type_vocab_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(sizes))
    return Embedder(load_model(str(folder)), max_tokens=64, precision="fp32")


def open_store(folder: Path, embedder: Embedder, *, words: int = 20, overlap_words: int = 5) -> PassageStore:
    return PassageStore.open(
        folder,
        model=embedder_identity(embedder),
        width=embedder.width,
        words=words,
        overlap_words=overlap_words,
        create=True,
    )


def sentences(draw: random.Random, count: int) -> str:
    """Sentences of five to nine of the words."""
    made = (" ".join(draw.choices(WORDS, k=draw.randint(5, 9))) for _ in range(count))
    return " ".join(f"{sentence.capitalize()}." for sentence in made)


def write_files(folder: Path, count: int, *, sentences_each: int = 12) -> list[Path]:
    """``count`` text files, the same ones every time."""
    draw = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.txt" for number in range(count)]
    for path in paths:
        path.write_text(sentences(draw, sentences_each))
    return paths


class Rows(dict[tuple[str, str, int, int, str], list[float]]):
    """Everything a store holds but names and order, vectors by what they stand for.

    Equal as what two stores of the same files share: a text's vector depends a little on what it was embedded with.
    """

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Rows)
        return self.keys() == other.keys() and all(np.allclose(self[key], other[key], atol=1e-5) for key in self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


def rows(store: PassageStore) -> Rows:
    found = store._table.search().to_arrow().to_pylist()
    columns = ("source", "content_hash", "passage_index", "start", "searched_text")
    held = Rows({tuple(row[column] for column in columns): row["vector"] for row in found})
    assert len(held) == len(found), "a passage stands twice"
    return held


INDEXER = """
import sys
from pathlib import Path
import torch
import cypher.apps.qa.index as index
from store_parts import open_store
from cypher.models.load import load_model
from cypher.tasks.embed import Embedder
torch.set_num_threads(1)
index.COMMIT_PASSAGES = 16
model, store, files, pause = sys.argv[1:]
embedder = Embedder(load_model(model), max_tokens=64, precision="fp32")
def progress(what, done, total):
    print("progress", done, total, flush=True)
    import time; time.sleep(float(pause))
def on_wait(line):
    print("waiting", flush=True)
opened = open_store(Path(store), embedder)
print("ready", flush=True)
sys.stdin.readline()
report = index.index_paths(opened, files, embedder, progress=progress, on_wait=on_wait)
print("report", report.added, report.updated, report.unchanged, flush=True)
"""


def start_indexer(model: Path, store: Path, files: Path, *, pause: float = 0.0) -> subprocess.Popen[str]:
    """A process that opens the store, says "ready", and indexes once it is sent a line."""
    return subprocess.Popen(
        [sys.executable, "-c", INDEXER, str(model), str(store), str(files), str(pause)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE,
    )


def send(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def read_until(process: subprocess.Popen[str], word: str, *, seconds: float = 60) -> list[str]:
    """Lines up to the first that begins with ``word``."""
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        assert line, f"the process ended after {lines}"
        lines.append(line.strip())
        if line.startswith(word):
            return lines
    raise AssertionError(f"no {word!r} in {lines}")
