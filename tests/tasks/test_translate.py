"""Translation: label smoothing beside torch's, greedy translations, BLEU, files side by side."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import pytest
import torch

from cypher.config import TranslateConfig
from cypher.data.batch import Inputs
from cypher.errors import ConfigError, DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.models.fresh import train_tokenizer
from cypher.models.headed import HeadedModel
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig
from cypher.tasks.translate import PairRow, Translate, read_parallel

TOKENIZER = train_tokenizer(["a house by the river", "ein Haus am Fluss"], vocabulary_size=290)
SPECIAL = SpecialTokens(cls_id=1, sep_id=2, pad_id=0, mask_id=None)
ROWS = [
    PairRow(source="a house", target="ein Haus"),
    PairRow(source="a house by the river", target="ein Haus am Fluss"),
]


def task_of(*, with_bleu: bool = False, **settings: object) -> Translate:
    config = TranslateConfig(with_bleu=with_bleu, max_new_tokens=6, **settings)
    return Translate(config, tokenizer=TOKENIZER, special=SPECIAL)


def tiny() -> HeadedModel:
    torch.manual_seed(0)
    sizes = {"n_encoder_layers": 1, "n_decoder_layers": 2, "n_heads": 2, "inner_width": 32}
    model = Seq2Seq(Seq2SeqConfig(vocabulary_size=290, width=16, style="pre", **sizes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return HeadedModel(model, model.language_head()).eval()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_is_torchs_over_the_target_of_each_row(label_smoothing: float) -> None:
    task, model = task_of(label_smoothing=label_smoothing), tiny()
    batch = task.collate([task.encode(row, index=index)[0] for index, row in enumerate(ROWS)])
    term = task.step(model, batch)["target"]
    expected, count = 0.0, 0
    for row in ROWS:
        target = [1, *TOKENIZER.encode(str(row.target), add_special_tokens=False).ids, 2]
        source = torch.tensor([[*TOKENIZER.encode(row.source, add_special_tokens=False).ids, 2]])
        read = torch.tensor([target[:-1]])
        inputs = Inputs(token_ids=read, attention_mask=read > 0,
                        source=Inputs(token_ids=source, attention_mask=source > 0))  # fmt: skip
        logits = model(inputs)[0][0]
        criterion = torch.nn.CrossEntropyLoss(label_smoothing=label_smoothing, reduction="sum")
        expected += criterion(logits, torch.tensor(target[1:])).item()
        count += len(target) - 1
    assert term.count == count == task.counts(batch)["target"]
    assert term.total.item() == pytest.approx(expected, rel=1e-5)


def test_held_out_loss_has_no_smoothing_and_translations_come_one_by_one_alike() -> None:
    task, model = task_of(label_smoothing=0.3), tiny()
    asked = [PairRow(source=row.source) for row in ROWS]
    with torch.inference_mode():
        predictions = task.predict(model, [*ROWS, *asked])
        alone = [task.translate(model.model, [row.source])[0] for row in ROWS]
        batch = task.collate([task.encode(row, index=index)[0] for index, row in enumerate(ROWS)])
        smooth = task_of(label_smoothing=0.0).step(model, batch)["target"]
    assert [found.text for found in predictions] == [None, None, *alone]
    assert [found.count for found in predictions[2:]] == [0, 0]
    scores = task.score(ROWS, predictions[:2])
    assert scores["loss"] == pytest.approx(float(smooth.total) / smooth.count, rel=1e-5)
    with pytest.raises(DataError, match="without a target"):
        task.score(asked, predictions[2:])


def test_long_sides_lose_their_end_and_keep_their_end_token() -> None:
    (pair,) = task_of(max_length=5).encode(PairRow(source="river " * 9, target="Fluss " * 9), index=0)
    assert (len(pair.source), pair.source[-1]) == (5, 2)
    assert (len(pair.target), pair.target[0], pair.target[-1]) == (6, 1, 2)


def test_bleu_is_sacrebleus() -> None:
    if importlib.util.find_spec("sacrebleu") is None:
        with pytest.raises(ConfigError, match="sacrebleu"):
            task_of(with_bleu=True)
        return
    import sacrebleu

    task, model = task_of(with_bleu=True), tiny()
    with torch.inference_mode():
        predictions = task.predict(model, ROWS)
    scores = task.score(ROWS, predictions)
    texts, golds = [found.text for found in predictions], [[row.target for row in ROWS]]
    assert scores["bleu"] == sacrebleu.corpus_bleu(texts, golds).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(texts, golds).score


def test_files_side_by_side(tmp_path: Path) -> None:
    one, other = tmp_path / "a.en.gz", tmp_path / "a.de.gz"
    one.write_bytes(gzip.compress(b"a house\n\nthe river\n"))
    other.write_bytes(gzip.compress("ein Haus\nleer\nder Fluß\n".encode()))
    assert read_parallel(one, other) == [PairRow(source="a house", target="ein Haus"),
                                         PairRow(source="the river", target="der Fluß")]  # fmt: skip
    other.write_bytes(gzip.compress(b"ein Haus\n"))
    with pytest.raises(DataError, match=r"3 lines and .* 1"):
        read_parallel(one, other)


def test_a_tokenizer_spells_every_text() -> None:
    for text in ("a house", "Straße, ¿qué?", "日本語 🙂"):
        assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text
