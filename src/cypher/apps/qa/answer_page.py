"""Answers as one self-contained HTML page, each marked in the page of the document it stands on."""

from __future__ import annotations

from cypher.apps.qa.answers import Answer, AskResult
from cypher.documents import Document, Span, read_document
from cypher.errors import DataError
from cypher.report import escaped, page, render_spans

# Shown on either side of an answer whose document has no pages.
CHARACTERS_AROUND = 1500


def answer_page(result: AskResult) -> str:
    """The HTML of a result.

    The documents are read again for the text around the answers; where one is gone or has changed since it was
    indexed, the stored context is shown instead.

    Args:
        result: From ``QuestionAnswering.ask``.

    Returns:
        A whole page; ``cypher.files.write_text`` saves it.
    """
    documents: dict[str, Document | None] = {}
    parts = []
    for number, answer in enumerate(result.answers, start=1):
        if answer.answer is None:
            parts.append(f"<h2>{number}. No answer in these documents ({answer.score:.2f})</h2>")
            continue
        parts.append(f"<h2>{number}. {escaped(' '.join(answer.answer.split()))} ({answer.score:.2f})</h2>")
        parts.append(f"<p><small>{escaped(place_of(answer))}</small></p>")
        parts.append(_marked(answer, documents))
    if not parts:
        parts.append("<p>No answer.</p>")
    seconds = result.timings
    parts.append(f"<p><small>Retrieved in {seconds.retrieve_s:.3f} s, read in {seconds.read_s:.3f} s.</small></p>")
    return page(result.query, parts)


def place_of(answer: Answer) -> str:
    """Where an answer stands, as ``path:page``, or ``path`` where there are no pages.

    Example:
        >>> place_of(Answer(answer="in June", score=0.9, document="fair.pdf", page=3))
        'fair.pdf:3'
    """
    return f"{answer.document}:{answer.page}" if answer.page is not None else f"{answer.document}"


def _marked(answer: Answer, documents: dict[str, Document | None]) -> str:
    assert answer.answer is not None
    assert answer.document is not None
    assert answer.context is not None
    assert answer.context_start is not None
    assert answer.offset_start is not None
    assert answer.offset_end is not None
    start, end = answer.offset_start, answer.offset_end
    if answer.document not in documents:
        documents[answer.document] = _read(answer.document)
    document = documents[answer.document]
    if document is None or document.text[start:end] != answer.answer:
        first, text, context = answer.context_start, answer.context, None
    elif answer.page is not None:
        borders = [*document.pages, len(document.text)]
        first, text, context = borders[answer.page - 1], document.text, None
        # An answer may run over to the next page.
        text = text[first : max(borders[answer.page], end)]
    else:
        first, text, context = 0, document.text, CHARACTERS_AROUND
    span = Span(start=start - first, end=end - first, layer="answer", score=answer.score)
    return render_spans(text, [span], context=context)


def _read(path: str) -> Document | None:
    try:
        return read_document(path)
    except DataError:
        return None
