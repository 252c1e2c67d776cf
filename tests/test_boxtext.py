import random
from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from wherein.boxtext import BRACKET, CODECS, RANGES, Codec, TokenConstraint
from wherein.errors import InputError

codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
sides = st.sampled_from([1, 2, 13, 224, 997]) | st.integers(1, 1200)


# PIN-8: what a model may write, and the box that is read out of it
@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[28,70,112,182]", [28, 70, 112, 182]),
        ("[12, 30, 55, 81]", [12, 30, 55, 81]),
        (" [ 12 ,30 , 55,  81 ].<|endofchunk|>", [12, 30, 55, 81]),
        ("[05,30,55,81]", [5, 30, 55, 81]),
        ("[1\n,2\t,3,4]", [1, 2, 3, 4]),
        ("[0.5, 1.25, 3.75, 4.0]", [0.5, 1.25, 3.75, 4]),
        ("[-5, -2.5, 3, 4]", [0, 0, 3, 4]),
        ("[0, 0, 0.001, 0.001]", [0, 0, 0.001, 0.001]),
        ("Sure! The cat is at [1, 2, 3, 4], next to a dog at [5, 6, 7, 8].", [1, 2, 3, 4]),
        ("[cat] [1, 2, 3] [1, 2, 3, 4]", [1, 2, 3, 4]),
        ("[[1, 2, 3, 4]]", [1, 2, 3, 4]),
        ("cat: bbox[9,9,10,10]", [9, 9, 10, 10]),
        ("", None),
        ("The cat is on the left.", None),
        ("[]", None),
        ("[1, 2, 3]", None),
        ("[1, 2, 3, 4, 5]", None),
        ("[1, 2, 3, 4", None),
        ("1, 2, 3, 4", None),
        ("(1, 2, 3, 4)", None),
        ("[1 2 3 4]", None),
        ("[1, 2, , 4]", None),
        ("[a, b, c, d]", None),
        ("[1e3, 2, 3, 4]", None),
        ("[1., .5, 3, 4]", None),
        ("[--1, 2, 3, 4]", None),
        ("[nan, 0, inf, 4]", None),
        ("[3, 2, 1, 4]", None),
        ("[1, 4, 3, 2]", None),
        ("[1, 2, 1, 4]", None),
        ("[1, 2, 3, 2] [1, 2, 3, 4]", None),
        ("[0, 0, 5, " + "9" * 400 + "]", None),
        ("[" * 5000 + "1," * 5000, None),
    ],
)
def test_a_box_is_read_out_of_a_text(text: str, box: list[float] | None) -> None:
    got = CODECS["pixels"].decode(text, 224, 224)
    assert (got if got is None else got.tolist()) == box
    spans = CODECS["pixels"].spans(text)
    if box:
        assert [max(0.0, float(text[start:end])) for start, end in spans] == box


def test_codecs_by_hand() -> None:
    box = np.array([28, 70, 112, 182])
    written = {name: codec.encode(box, 224, 224) for name, codec in CODECS.items()}
    assert written == {
        "grid16": "[28,70,112,182]",
        "pixels": "[28, 70, 112, 182]",
        "0-100": "[12, 31, 50, 81]",
        "0-1000": "[125, 312, 500, 812]",
        "00-99": "[12,31,50,80]",
        "ranges": "from1 and3 to4 and7.",
    }
    assert CODECS["grid16"].encode(box * 2, 448, 448) == "[28,70,112,182]"
    assert CODECS["grid16"].decode("[28,70,112,182]", 448, 448).tolist() == [56, 140, 224, 364]
    assert CODECS["00-99"].decode("[00,00,99,99]", 30, 20).tolist() == [0, 0, 30, 20]
    assert CODECS["pixels"].encode([10.2, 10.2, 10.4, 10.4], 20, 20) == "[10, 10, 11, 11]"
    assert CODECS["00-99"].spans("at [05,30,55,81].") == [(4, 6), (7, 9), (10, 12), (13, 15)]
    assert CODECS["00-99"].spans("nowhere") == []
    assert CODECS["ranges"].decode("it goes from 0 and3 to9 and3.", 30, 20).tolist() == [0, 6, 30, 8]
    assert CODECS["ranges"].decode("from4 and3 to3 and3.", 30, 20) is None
    assert CODECS["ranges"].encode([10.2, 10.2, 10.4, 10.4], 20, 20) == "from5 and5 to5 and5."


def test_decode_cuts_to_the_picture() -> None:
    pixels = CODECS["pixels"]
    assert pixels.decode("[-5, 0, 500, 10]", 100, 50).tolist() == [0, 0, 100, 10]
    assert pixels.decode("[100, 0, 500, 10]", 100, 50) is None
    assert pixels.decode("no box", 100, 50) is None


@given(st.sampled_from(list(CODECS.values())), sides, sides, st.tuples(*[st.floats(-0.2, 1.2)] * 4))
def test_encode_then_decode_is_as_near_as_the_numbers_allow(codec: Codec, width: int, height: int, ends: tuple) -> None:
    size = np.array([width, height, width, height])
    box = np.array([min(ends[0], ends[2]), min(ends[1], ends[3]), max(ends[0], ends[2]), max(ends[1], ends[3])]) * size
    inside = np.clip(box, 0, size)
    if not (inside[2] > inside[0] and inside[3] > inside[1]):
        with pytest.raises(InputError, match="no area"):
            codec.encode(box, width, height)
        return
    text = codec.encode(box, width, height)
    assert codec.grammar(width, height).full(text)
    step = size / (np.array([len(codec.numbers(side)) for side in size]) - 1 + codec.beyond)
    large = np.tile(inside[2:] - inside[:2] >= step[:2], 2)
    assert (np.abs(codec.decode(text, width, height) - inside) <= np.where(large, step / 2, step) + 1e-9).all()


def test_a_box_that_is_no_box_is_not_encoded() -> None:
    for box in ([5, 5, 5, 9], [9, 9, 1, 1], [np.nan, 0, 1, 1], [-9, -9, 0, 0]):
        with pytest.raises(InputError, match="no area"):
            CODECS["pixels"].encode(box, 10, 10)
    with pytest.raises(InputError, match="at least 1 pixel"):
        CODECS["grid16"].grammar(0, 5)


@pytest.mark.parametrize(
    ("codec", "width", "height"),
    [
        (Codec("pixels"), 12, 3),
        (Codec("pixels"), 1, 11),
        (Codec("no spaces", frame=BRACKET), 2, 10),
        (Codec("grid", unit=28, step=14, frame=BRACKET), 224, 5),
        (Codec("two digits", unit=12, step=3, digits=2, frame=BRACKET), 50, 50),
        (Codec("words", unit=3, digits=2, frame=("x ", " y ", " to ", " and ", ".")), 50, 50),
        (Codec("strips", unit=4, frame=RANGES, inclusive=True), 50, 50),
    ],
)
@pytest.mark.parametrize("lead", ["", " ", "at "])
def test_prefix_is_exact(codec: Codec, width: int, height: int, lead: str) -> None:
    grammar = codec.grammar(width, height, lead)
    pairs = combinations_with_replacement if codec.inclusive else combinations
    columns, rows = (list(pairs(codec.numbers(side), 2)) for side in (width, height))
    parts = [(*zip(codec.frame, (a, b, c, d, ""), strict=True),) for a, c in columns for b, d in rows]
    texts = {lead + "".join(text + number for text, number in pairs) for pairs in parts}
    beginnings = {text[:end] for text in texts for end in range(len(text) + 1)}
    assert grammar.alphabet == {character for text in texts for character in text}
    for text in beginnings:
        assert grammar.prefix(text)
        assert grammar.full(text) == (text in texts)
        for character in "x-. " + "".join(grammar.alphabet):
            assert grammar.prefix(text + character) == (text + character in beginnings)
    assert all(codec.decode(text, width, height) is not None for text in texts)


@codecs
@pytest.mark.parametrize(
    "text", ["x", "]", " [", "[[", "[,", "[-1", "[1.5", "[9999", "[5,,", "[1;", "[2, 1, 1, 2]", "[]"]
)
def test_garbage_is_no_prefix(codec: Codec, text: str) -> None:
    grammar = codec.grammar(2, 2)
    assert not grammar.prefix(text)
    assert not grammar.full(text)


def lines() -> list[str]:
    draw = random.Random(0)
    numbers = [sorted(draw.choices(range(225), k=4)) for _ in range(300)]
    return [f"at {row} or [{','.join(map(str, row))}]. the cat, [cat], 12 from1 and3 to4 and6." for row in numbers]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(lines(), trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
    return tokenizer


def metaspace() -> Tokenizer:
    """As Llama 2 has it: a leading space is dropped when text is decoded."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = sorted({*"▁[],.0123456789", *"".join(RANGES)} - {" "})
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, special_tokens=special, max_token_length=5)
    tokenizer.train_from_iterator(lines(), trainer)
    return tokenizer


TOKENIZERS = {"byte-level": byte_level(), "metaspace": metaspace()}


@codecs
@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
@pytest.mark.parametrize(("width", "height"), [(224, 224), (1, 1), (1000, 7)])
def test_random_walks_end_in_a_box(codec: Codec, tokenizer: Tokenizer, width: int, height: int) -> None:
    constraint = TokenConstraint(tokenizer, codec.grammar(width, height))
    draw = random.Random(1)
    lengths = set()
    for _ in range(10):
        ids: list[int] = []
        text = ""
        while not constraint.grammar.full(text):
            choice = constraint.allowed(text)
            assert choice and len(ids) < 60
            ids.append(draw.choice(choice))
            text = tokenizer.decode(ids, skip_special_tokens=False)
            assert constraint.grammar.prefix(text)
        lengths.add(len(ids))
        x0, y0, x1, y1 = codec.decode(text, width, height)
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert constraint.allowed(text) == []
    assert len(lengths) > 1 or width == 1  # tokens of several characters are among the allowed


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_the_natural_tokens_of_an_answer_are_allowed(tokenizer: Tokenizer) -> None:
    codec = CODECS["pixels"]
    constraint = TokenConstraint(tokenizer, codec.grammar(224, 224, lead=" "))
    answer = " " + codec.encode([5, 17, 130, 224], 224, 224)
    prompt = tokenizer.encode("the cat")
    ids = tokenizer.encode("the cat" + answer).ids
    assert ids[: len(prompt)] == prompt.ids
    done = ""
    for count in range(len(prompt), len(ids)):
        assert ids[count] in constraint.allowed(done)
        done = tokenizer.decode(ids[: count + 1]).removeprefix("the cat")
    assert done == answer


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_spelled_tokens_read_as_the_text(tokenizer: Tokenizer) -> None:
    constraint = TokenConstraint(tokenizer, CODECS["pixels"].grammar(224, 224))
    for text in ("", "[", ",", ", ", " ", "99, 224]", "[12, 30, 55, 81]"):
        ids = constraint.spell(text)
        assert "".join(map(constraint.piece, ids)) == text
        assert tokenizer.decode([*tokenizer.encode("cat").ids, *ids]) == "cat" + text
    assert len(constraint.spell("[12, 30, 55, 81]")) < len("[12, 30, 55, 81]")


def test_transformers_tokenizers_are_served_alike() -> None:
    from transformers import PreTrainedTokenizerFast

    grammar = CODECS["grid16"].grammar(224, 224)
    for tokenizer in TOKENIZERS.values():
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        for text in ("", "[", "[1", "[14,", "[14,28,98"):
            assert TokenConstraint(wrapped, grammar).allowed(text) == TokenConstraint(tokenizer, grammar).allowed(text)


def test_forced() -> None:
    def forced(name: str, text: str, width: int = 224) -> str:
        return TokenConstraint(TOKENIZERS["byte-level"], CODECS[name].grammar(width, 224)).forced(text)

    assert forced("00-99", "") == "["
    assert forced("00-99", "[0") == ""
    assert forced("00-99", "[05") == ","
    assert forced("00-99", "[98,10") == ",99,"
    assert forced("00-99", "[98,98") == ",99,99]"
    assert forced("pixels", "[12,") == " "
    assert forced("pixels", "[12") == ""
    assert forced("pixels", "", width=1) == "[0, "
    assert forced("grid16", "[28,70,112,182") == "]"
    assert forced("grid16", "[28,70,112,182]") == ""
    assert forced("grid16", "garbage") == ""


def test_a_tokenizer_without_the_characters_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[": 0, "1": 1}, unk_token="["))
    tokenizer.decoder = decoders.Fuse()
    with pytest.raises(InputError, match="no token of its own"):
        TokenConstraint(tokenizer, CODECS["pixels"].grammar(9, 9))
