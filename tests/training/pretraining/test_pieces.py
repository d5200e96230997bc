"""Tokenizers trained at hand: the same every time, and laid out as each family is published."""

import pytest
from tokenizers import Tokenizer

from bartizan_connector.base.errors import WrongUse
from bartizan_training.pretraining.pieces import Pieces, trained

TEXTS = [
    f"The {word} of a tower is {word}er than one; it stands at {n}." for n, word in enumerate(["high", "old"] * 20)
]


@pytest.mark.parametrize("family", ["t5", "llama", "bert"])
def test_the_same_texts_give_the_same_tokenizer(family: str) -> None:
    made = trained(family, TEXTS, 400)  # type: ignore[arg-type]
    assert trained(family, TEXTS, 400).text == made.text  # type: ignore[arg-type]
    assert made.size <= 400
    assert made.special["pad"] == 0


def test_a_t5_names_holes_from_the_end_of_its_vocabulary_on() -> None:
    made = trained("t5", TEXTS, 400)
    assert (made.special["pad"], made.special["end"], made.special["unknown"]) == (0, 1, 2)
    assert made.sentinels == tuple(range(made.size - 1, made.size - 101, -1))
    read = Tokenizer.from_str(made.text).encode("the tower <extra_id_0> old")
    assert read.ids[-1] == 1
    assert made.sentinels[0] in read.ids


def test_a_text_of_bytes_is_read_back_whole() -> None:
    made = Tokenizer.from_str(trained("llama", TEXTS, 400).text)
    assert made.decode(made.encode("Ünïcödé 東京 🙂").ids) == "Ünïcödé 東京 🙂"


def test_a_bert_reads_without_case_between_first_and_end() -> None:
    made = trained("bert", TEXTS, 400)
    ids = Tokenizer.from_str(made.text).encode("THE Tower").ids
    assert ids == Tokenizer.from_str(made.text).encode("the tower").ids
    assert (ids[0], ids[-1]) == (made.special["first"], made.special["end"])


def test_too_small_a_vocabulary_and_a_foreign_tokenizer_are_refused() -> None:
    with pytest.raises(WrongUse, match="vocabulary = 120 leaves no room for words; a t5 needs 135"):
        trained("t5", TEXTS, 120)
    with pytest.raises(WrongUse, match=r"a bert needs the pieces \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"):
        _ = Pieces("bert", trained("llama", TEXTS, 400).text).special
