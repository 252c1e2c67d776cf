"""VQA's accuracy (Antol et al., ICCV'15) as its official evaluator has it: how many people gave the answer.

Notable choices:
- the evaluator is the code (github.com/GT-Vision-Lab/VQA, a013f00), which differs from the steps on its web page: what
  becomes of a sign hangs on the whole answer, and where all people agree nothing is normalised, so "Yes." is not "yes"
- others have other rules: the evaluator's early versions left people's number words and articles as they are, and
  OpenFlamingo's harness normalises always, so it counts more answers as right
"""

import re
from collections.abc import Sequence

WANTED = 3
"""People who must agree with an answer for it to be wholly right."""
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(value) for value, word in enumerate(_NUMBERS)}}
_ARTICLES = frozenset({"a", "an", "the"})
_SIGNS = r""";/[]"{}()=+\_-><@`,?!"""  # others, such as the apostrophe, the colon, % and $, belong to an answer
_WHOLE = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {
    "somebody'd": "somebodyd",  # as the evaluator has it
    **{
        whole[:place] + whole[place + 1 :]: whole  # one apostrophe is missing
        for whole in _WHOLE.split()
        for place, character in enumerate(whole)
        if character == "'"
    },
}


def normalise(answer: str) -> str:
    """An answer as it is compared where people disagree.

    A sign of punctuation vanishes if it stands beside a space anywhere in the answer, or if there is a comma between
    digits; else it becomes a space. Then go the full stops that no digit follows. In lower case, number words up to ten
    become digits, articles go, and contractions that lack an apostrophe get it.

    >>> [normalise(answer) for answer in ("The Dog.", "Two-story", "dont know", "1,000", "2.50", "10:30 a.m.")]
    ['dog', '2 story', "don't know", '1000', '2.50', '10:30 am']
    >>> normalise("t-shirt"), normalise("t-shirt - blue"), normalise("1,000-2,000")
    ('t shirt', 'tshirt blue', '10002000')
    """
    text, joined = answer, re.search(r"\d,\d", answer) is not None
    for sign in _SIGNS:
        beside = f"{sign} " in answer or f" {sign}" in answer
        text = text.replace(sign, "" if joined or beside else " ")
    words = (_DIGITS.get(word, word) for word in re.sub(r"\.(?!\d)", "", text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, people: Sequence[str]) -> float:
    """The share in 0..1 to which an answer is right: min(people who gave it / 3, 1), a mean over all but one of them.

    Each of the ten people is left out once, as in VQA's evaluation, so that people can be judged by it as well: three
    of ten give 0.9, four 1. Where all of them wrote the same, no answer but that is right.

    >>> soft_accuracy("Yes.", ["yes"] * 3 + ["no"] * 7)
    0.9
    >>> soft_accuracy("2", ["two"] * 9 + ["three"]), soft_accuracy("2", ["two"] * 10)
    (1.0, 0.0)
    """
    given, *others = (re.sub(r"[\n\t]", " ", text).strip() for text in (answer, *people))
    if len(set(others)) > 1:
        given, *others = (normalise(text) for text in (given, *others))
    agree = [other == given for other in others]
    total = sum(agree)
    return sum(min((total - own) / WANTED, 1.0) for own in agree) / len(agree)
