"""A question changed so little that its passage still looks as if it held the answer.

The kinds follow what the crowd workers of SQuAD 2.0 did by hand (Rajpurkar et al. 2018, arXiv 1806.03822, table 2:
entity swap, antonym, negation, mutual exclusion, and questions that are merely close to the passage).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cypher.tasks.answer_metrics import normalise_answer
from cypher.tasks.similar_words import STEM_LETTERS, SimilarWords

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# A number, or capitalised words in a row that do not open the sentence.
_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_NAME = re.compile(r"(?<=[\w,;] )(?!I\b)[A-Z][\w'’.-]*\w(?: [A-Z][\w'’.-]*\w)*")
_ENDINGS = ("ing", "ed", "ly", "est", "er", "s")
# One of so many likest words is drawn.
_CHOICES = 6

_FUNCTION_WORDS = frozenset(
    """
    a about above after all along also am among an and another any anything are around as at be because been before
    being below between both but by can could did do does doing done down during each either else ever every for from
    get gets go goes got had has have having he her hers herself him himself his how i if in into is it its itself
    just kind like many may me might mine more most much must my myself name no nor not of off often on once one only
    or other our ours out over own part same shall she should since so some someone something sort still such than
    that the their theirs them themselves then there these they thing things this those through time to too type
    under until up upon us used very was way we well were what when where which while who whom whose why will with
    within without would you your yours
    """.split()
)

_DETERMINERS = frozenset(
    "a an the this that these those his her its their my your our no some any another each".split()
)

_OPPOSITES = """
    accept reject, accepted rejected, add remove, added removed, advantage disadvantage, advantages disadvantages,
    agree disagree, agreed disagreed, alive dead, allow forbid, allowed forbidden, always never, ancient modern,
    appear disappear, arrive leave, arrived left, attack defend, attacked defended, attractive ugly, begin end,
    beginning ending, began ended, benefit harm, benefits drawbacks, best worst, better worse, big small, bigger
    smaller, biggest smallest, black white, born killed, bought sold, boy girl, boys girls, boyfriend girlfriend,
    bright dark, brother sister, brothers sisters, build destroy, built destroyed, buy sell, cheap expensive,
    cheaper dearer, clean dirty, close open, closed opened, closest farthest, cold hot, common rare, correct wrong,
    cause prevent, caused prevented, created abolished, daughter son, daughters sons, day night, decrease increase,
    decreased increased, decline growth, deep shallow, defeat victory, different identical, difficult easy, dislike
    like, disliked liked, dislikes likes, dry wet, earlier later, earliest latest, early late, east west, eastern
    western, encourage discourage, enemy friend, enemies friends, enter exit, entered left, even odd, export import,
    exports imports, external internal, fail succeed, failed succeeded, failure success, far near, fast slow, faster
    slower, fastest slowest, father mother, female male, fewest most, final initial, find lose, first last, former
    latter, founded dissolved, free paid, full empty, gain lose, gained lost, good bad, happy sad, harder easier,
    hate love, hated loved, heavy light, high low, higher lower, highest lowest, husband wife, include exclude,
    included excluded, includes excludes, inner outer, inside outside, join leave, joined left, king queen, large
    little, larger lesser, largest smallest, least most, left right, legal illegal, less more, long short, longer
    shorter, longest shortest, majority minority, man woman, men women, major minor, maximum minimum, negative
    positive, new old, newer older, newest oldest, next previous, noisy quiet, north south, northern southern,
    northeast southwest, northwest southeast, official unofficial, older younger, oldest youngest, parent child,
    parents children, permanent temporary, plural singular, poor rich, popular unpopular, private public, pull push,
    raise lower, raised lowered, recommend discourage, recommended discouraged, remember forget, remembered forgot,
    rise fall, rose fell, rough smooth, safe dangerous, similar unlike, simple complex, soft hard, start stop,
    started stopped, starts ends, strength weakness, strengths weaknesses, strong weak, stronger weaker, strongest
    weakest, successful unsuccessful, summer winter, support oppose, supported opposed, supports opposes, tall
    short, taller shorter, tallest shortest, thick thin, top bottom, true false, upper lower, urban rural, war
    peace, win lose, won lost, winner loser
"""
_OPPOSITE: dict[str, str] = {}
for _pair in _OPPOSITES.split(","):
    _one, _other = _pair.split()
    _OPPOSITE.setdefault(_one, _other)
    _OPPOSITE.setdefault(_other, _one)

_NOT = re.compile(r"\b(?:not|never) |(?<=\w)n['’]t\b", re.IGNORECASE)
_CONTRACTED = {verb: f"{verb}n't" for verb in "is are was were does do did could has have had would should".split()} | {
    "can": "can't",
    "will": "won't",
}
# An auxiliary that opens the question asks for yes or no, and the answer is the same with "not".
_AUXILIARY = re.compile(rf"(?<=\s)(?:{'|'.join(_CONTRACTED)})\b", re.IGNORECASE)
# Where two questions can be cut and joined.
_JOINT = re.compile(
    r"\b(?:is|are|was|were|does|do|did|has|have|had|of|in|on|at|to|for|from|by|with|that|after|before)\b", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an alteration may draw from.

    Args:
        question: To be changed.
        passage: It was asked about.
        answers: Gold answers; never put into the question.
        siblings: Other questions about the same passage.
        strangers: Questions about other passages of the same article.
        similar_words: Where similar words come from.
    """

    question: str
    passage: str
    answers: Sequence[str]
    siblings: Sequence[str] = ()
    strangers: Sequence[str] = ()
    similar_words: SimilarWords


def swap_name(asked: Asked, random_source: random.Random) -> str | None:
    """A name of the question becomes another name of the passage."""
    return _swap(asked, _NAME, random_source)


def swap_number(asked: Asked, random_source: random.Random) -> str | None:
    """A number of the question becomes another number of the passage, or a near one."""
    swapped = _swap(asked, _NUMBER, random_source)
    years = [found for found in _NUMBER.findall(asked.question) if found.isdigit() and len(found) < 6]
    if swapped or not years:
        return swapped
    old = random_source.choice(years)
    return _replaced(asked.question, _NUMBER, old, str(int(old) + random_source.choice((1, 2, 3, 5, 10))))


def swap_opposite(asked: Asked, random_source: random.Random) -> str | None:
    """A word becomes its opposite."""
    places = [found for found in _WORD.finditer(asked.question) if found.group().lower() in _OPPOSITE]
    if not places:
        return None
    place = random_source.choice(places)
    return _with(asked.question, place, _OPPOSITE[place.group().lower()])


def negate(asked: Asked, random_source: random.Random) -> str | None:
    """A "not" goes in, or comes out."""
    without = _NOT.sub("", asked.question, count=1)
    if without != asked.question:
        return without
    places = list(_AUXILIARY.finditer(asked.question))
    if not places:
        return None
    verb = random_source.choice(places)
    return asked.question[: verb.start()] + _CONTRACTED[verb.group().lower()] + asked.question[verb.end() :]


def swap_similar(asked: Asked, random_source: random.Random) -> str | None:
    """A word that leads to the passage becomes a similar one of the same ending: Latin Greek, largest smallest."""
    places = _leading_words(asked)
    if not places:
        return None
    place = random_source.choice(places)
    golds = set(normalise_answer(" ".join(asked.answers)).split())
    ending = _ending(place.group().lower())
    others = [
        word
        for word in asked.similar_words.near(place.group().lower())
        if _ending(word) == ending and word not in golds and word not in asked.question.lower()
    ]
    return _with(asked.question, place, random_source.choice(others[:_CHOICES])) if others else None


def swap_word(asked: Asked, random_source: random.Random) -> str | None:
    """A word that leads to the passage becomes one of the likest in the passage or a neighbouring question."""
    places = _leading_words(asked)
    if not places:
        return None
    place = random_source.choice(places)
    form = _form(asked.question, place)
    sources = [asked.passage, *asked.siblings, *random_source.sample(asked.strangers, min(4, len(asked.strangers)))]
    used = asked.question.lower()
    golds = normalise_answer(" ".join(asked.answers))
    mine = place.group().lower()
    others = {
        word.group()
        for source in sources
        for word in _content_words(source)
        if _form(source, word) == form
        and word.group().lower() not in used
        and word.group().lower() not in golds
        and word.group().lower()[:STEM_LETTERS] != mine[:STEM_LETTERS]
    }
    likest = sorted(others, key=lambda word: (-asked.similar_words.cosine(mine, word.lower()), word))
    return _with(asked.question, place, random_source.choice(likest[:_CHOICES])) if likest else None


def splice(asked: Asked, random_source: random.Random) -> str | None:
    """The first half of the question goes on with the second half of another about the same passage."""
    joints = [
        (mine, theirs, other)
        for other in asked.siblings
        for mine in _JOINT.finditer(asked.question)
        for theirs in _JOINT.finditer(other)
        if mine.start() and theirs.start() and mine.group().lower() == theirs.group().lower()
    ]
    if not joints:
        return None
    mine, theirs, other = random_source.choice(joints)
    return asked.question[: mine.end()] + other[theirs.end() :]


def transplant(asked: Asked, random_source: random.Random) -> str | None:
    """A question about another passage, with the names and numbers of this one."""
    for other in random_source.sample(asked.strangers, min(8, len(asked.strangers))):
        question = other
        for pattern in (_NAME, _NUMBER):
            here = sorted({found for found in pattern.findall(asked.passage) if not _is_answer(found, asked.answers)})
            for found in pattern.findall(other):
                if here:
                    question = _replaced(question, pattern, found, random_source.choice(here))
        if question != other:
            return question
    return None


ALTERATIONS: Mapping[str, Callable[[Asked, random.Random], str | None]] = {
    "name": swap_name,
    "number": swap_number,
    "opposite": swap_opposite,
    "negated": negate,
    "similar": swap_similar,
    "word": swap_word,
    "spliced": splice,
    "transplanted": transplant,
}
"""By name; each gives ``None`` where a question has nothing of its kind to change."""


def _swap(asked: Asked, pattern: re.Pattern[str], random_source: random.Random) -> str | None:
    there = pattern.findall(asked.question)
    others = sorted(
        {
            found
            for found in pattern.findall(asked.passage)
            if found.lower() not in asked.question.lower() and not _is_answer(found, asked.answers)
        }
    )
    return (
        _replaced(asked.question, pattern, random_source.choice(there), random_source.choice(others))
        if there and others
        else None
    )


def _replaced(question: str, pattern: re.Pattern[str], old: str, new: str) -> str:
    """``new`` wherever the pattern finds ``old``: not inside a longer word, name or number."""
    return pattern.sub(lambda found: new if found.group() == old else found.group(), question)


def _is_answer(text: str, answers: Sequence[str]) -> bool:
    return normalise_answer(text) in {normalise_answer(answer) for answer in answers}


def _leading_words(asked: Asked) -> list[re.Match[str]]:
    """The question's content words that the passage has, too."""
    passage = asked.passage.lower()
    return [place for place in _content_words(asked.question) if place.group().lower() in passage]


def _content_words(text: str) -> Iterator[re.Match[str]]:
    return (
        found
        for found in _WORD.finditer(text)
        if len(found.group()) > 2
        and not {"'", "’"} & set(found.group())
        and found.group().lower() not in _FUNCTION_WORDS
    )


def _form(text: str, word: re.Match[str]) -> tuple[bool, str, str]:
    """Words of one form can mostly stand in each other's place: capital, ending, and what kind of word is before."""
    before = _WORD.findall(text[: word.start()][-30:])
    last = before[-1].lower() if before else ""
    kind = "determiner" if last in _DETERMINERS else "function" if last in _FUNCTION_WORDS else "content"
    return word.group()[0].isupper(), _ending(word.group()), kind


def _ending(word: str) -> str:
    return next((ending for ending in _ENDINGS if word.endswith(ending)), "")


def _with(question: str, place: re.Match[str], word: str) -> str:
    word = word.capitalize() if place.group()[0].isupper() else word
    return question[: place.start()] + word + question[place.end() :]
