"""VQA's accuracy (Antol et al., ICCV'15): how many people gave the answer, both sides normalised by published rules."""

import re
from collections.abc import Sequence

WANTED = 3
"""People who must agree with an answer for it to be wholly right."""
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(value) for value, word in enumerate(_NUMBERS)}}
_ARTICLES = frozenset({"a", "an", "the"})
_SPACED = re.compile(r"""[;/\[\]"{}()=+\\_\-><@`,?!]""")  # signs such as % and $ belong to an answer
# Left out is what people write without an apostrophe as another word: its, were, well, ill, shell, lets.
_SHORTENED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't how'd how'll
    how's i'd've i'm i've isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't o'clock
    oughtn't shan't should've shouldn't shouldn't've someone'd someone'll someone's something'd something'll that'd
    that'll that's there'd there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
    what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {
    form: whole
    for whole in _SHORTENED.split()
    for form in (whole.replace("'", ""), whole.replace("'", "", 1), whole[::-1].replace("'", "", 1)[::-1])
}


def normalise(answer: str) -> str:
    """An answer as it is compared: the steps that VQA's evaluation page publishes, in this order.

    Lower case; no full stop that is not a decimal point; no comma between digits, and a space for other punctuation,
    except apostrophes and colons; number words up to ten as digits; no articles; the apostrophe of a contraction where
    it is missing.

    >>> [normalise(answer) for answer in ("The Dog.", "Two-story", "dont know", "1,000", "2.50", "10:30 a.m.")]
    ['dog', '2 story', "don't know", '1000', '2.50', '10:30 am']
    """
    text = re.sub(r"\.(?!\d)", "", answer.lower())
    text = _SPACED.sub(" ", re.sub(r"(?<=\d),(?=\d)", "", text))
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, people: Sequence[str]) -> float:
    """The share in 0..1 to which an answer is right: min(people who gave it / 3, 1), a mean over all but one of them.

    Each of the ten people is left out once, as in VQA's evaluation, so that people can be judged by it as well: three
    of ten give 0.9, four 1.

    >>> soft_accuracy("Yes.", ["yes"] * 3 + ["no"] * 7)
    0.9
    """
    given = normalise(answer)
    agree = [normalise(other) == given for other in people]
    total = sum(agree)
    return sum(min((total - own) / WANTED, 1.0) for own in agree) / len(agree)
