"""What every test may count on: a cache and a seed of its own, real data and weights when there are any.

The environment says what there is: ``CYPHER_DATA`` names the folder of real data sets, and once it does, a
test of real data may not skip. ``CYPHER_REQUIRE=1`` demands data and weights both.
"""

from __future__ import annotations

import json
import os
import random
import signal
import string
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cypher.hub.cache import cache_folder, is_offline

# Run by an interpreter that has the library it imports.
collect_ignore = ["adapters/adapters_library.py", "adapters/hub_folders_library.py"]
# Loaded as they are; collected for docstrings as well, two of them would be one module.
collect_ignore_glob = ["*/conftest.py"]

DATA = os.environ.get("CYPHER_DATA", "")
REQUIRED = os.environ.get("CYPHER_REQUIRE") == "1"
OFFLINE = is_offline()
REAL_CACHE = cache_folder()

# Sums in parallel round by the number of threads: a fixed one gives the same figures on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell that starts the tests in the background has Ctrl-C ignored, and all programs they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say what decides which tests run."""
    return f"CYPHER_DATA: {DATA or 'not set, tests of real data skip'}; missing parts {'fail' if REQUIRED else 'skip'}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With a data folder, a test of real data that skips has proved nothing: it fails."""
    report = yield
    real = item.get_closest_marker("real_data") is not None
    if DATA and real and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although CYPHER_DATA is {DATA}: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of the session's own, without network; models that were fetched before are seen through a link."""
    cache = tmp_path_factory.mktemp("cypher-cache")
    (cache / "models").symlink_to(REAL_CACHE / "models", target_is_directory=True)
    os.environ["CYPHER_CACHE"] = str(cache)
    os.environ["CYPHER_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every run, of those libraries that are loaded."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def real_parts(request: pytest.FixtureRequest) -> None:
    """Skip, or fail, before a marked test starts when what it needs is absent."""
    for marker, fixture in (("real_data", "data_folder"), ("real_weights", "minilm_folder")):
        if request.node.get_closest_marker(marker):
            request.getfixturevalue(fixture)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; a test that asks for it is marked ``real_data``."""
    if not DATA:
        _absent("CYPHER_DATA names no folder of real data sets")
    if not Path(DATA).is_dir():
        pytest.fail(f"CYPHER_DATA is {DATA}: there is no such folder", pytrace=False)
    return Path(DATA)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real MiniLM, fetched once into the person's own cache; a test that asks for it is marked ``real_weights``."""
    from cypher.errors import ModelError
    from cypher.hub import resolve

    (REAL_CACHE / "models").mkdir(parents=True, exist_ok=True)
    try:
        return resolve("minilm", offline=OFFLINE)
    except ModelError as error:
        _absent(f"minilm is not here: {error}")


@pytest.fixture(scope="session")
def absent() -> Callable[[str], NoReturn]:
    """Call it with the reason when a part that not everybody has is not here: the test skips, or fails in CI."""
    return _absent


def _absent(reason: str) -> NoReturn:
    if REQUIRED:
        pytest.fail(f"{reason}, and CYPHER_REQUIRE is 1", pytrace=False)
    pytest.skip(reason)


COMMON_WORDS = ["a", "and", "at", "by", "for", "from", "in", "is", "of", "the", "to", "was", "what", "where", "who"]


@pytest.fixture(scope="session")
def make_tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the folder of a BERT with random weights, as it would be published.

    ``make_tiny_bert(words=("river",), seed=1, num_hidden_layers=3)``: ``words`` are tokens beside the common
    words, all others fall into letters; further names are those of a published ``config.json``.
    """

    def make(*, words: Sequence[str] = (), seed: int = 0, **sizes: Any) -> Path:
        folder = tmp_path_factory.mktemp("tiny-bert")
        vocabulary = _write_tokenizer(folder, words)
        config = {
            "model_type": "bert",
            "architectures": ["BertModel"],
            "vocab_size": len(vocabulary),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "pad_token_id": vocabulary["[PAD]"],
            **sizes,
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        _write_weights(folder, config, seed)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_bert(make_tiny_bert: Callable[..., Path]) -> Path:
    """One such folder for the whole session; read it, never write to it."""
    return make_tiny_bert()


def _write_tokenizer(folder: Path, words: Sequence[str]) -> dict[str, int]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = string.ascii_lowercase + string.digits
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *letters, *string.punctuation, *(f"##{letter}" for letter in letters), *COMMON_WORDS, *words]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {f"{token.strip('[]').lower()}_token": token for token in special}
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return vocabulary


def _write_weights(folder: Path, config: dict[str, Any], seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    from cypher.models.bert import NAME_MAP, Bert, BertConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = Bert(BertConfig.from_checkpoint(config)).state_dict()
    named = {str(NAME_MAP.to_theirs(name)): tensor for name, tensor in state.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of a megabyte; only root can mount one, and where root may not either, CI fails."""
    if os.geteuid() != 0:
        pytest.skip("a small disk can only be mounted by root")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(options, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        _absent(f"a small disk could not be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def threads() -> Generator[Callable[[int], None]]:
    """Set how many threads torch may use; what was is set again afterwards."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
