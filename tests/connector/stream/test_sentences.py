"""Where sentences begin: by examples; and that nothing that belongs together is parted."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.stream.sentences import sentence_starts, whole

EXAMPLES = [
    ["One is here. ", "Two is there! ", "Is three? ", "Yes."],
    ["Dr. Smith met Mr. J. R. Jones at 3.5 p.m. on Jan. 5 in the U.S. Army. ", "They spoke."],
    ["See Fig. 3 and Eq. 4, e.g. the first, i.e. this one. ", "Then go on."],
    ["It is approx. five, etc. and so on. ", "Next."],
    ["So do I. ", "Nobody else does."],
    ['"Go!" ', "She went (at last). ", "Then… ", "Nothing."],
    ["Version 1.2.3 of example.com is out. ", "Get it."],
    ["A heading\n", "Its text begins here,\nand goes on\nwrapped. ", "The end."],
    ["a paragraph without a stop\n\n", "another one\n\n\n", "the last"],
    ["吾輩は猫である。", "名前はまだ無い。", "「本当か？」", "そうだ！ ", "おわり"],
    ["यह एक है। ", "यह दो है।"],
    ["ما هذا؟ ", "كتاب."],
    ["- one thing\n", "- another\n", "- a third"],
    [""],
    ["no stop at all"],
    ["...and? ", "What..."],
]


@pytest.mark.parametrize("sentences", EXAMPLES, ids=lambda sentences: sentences[0][:20])
def test_a_text_comes_apart_at_its_sentences(sentences: list[str]) -> None:
    text = "".join(sentences)
    starts = [0, *sentence_starts(text), len(text)]
    assert [text[a:b] for a, b in pairwise(starts)] == sentences


@given(st.text(alphabet='aA.!? \n。\t)"I1', max_size=60) | st.text(max_size=60))
def test_starts_rise_and_lie_inside_whatever_the_text(text: str) -> None:
    starts = sentence_starts(text)
    assert starts == sorted(set(starts))
    assert all(0 < start < len(text) for start in starts)


@pytest.mark.packaging
@pytest.mark.parametrize("piece", [" ", ".", "\n", ".)", "。」", ". ", "a.", "\u0301", "🇩"])
def test_a_long_run_of_anything_takes_no_time(piece: str) -> None:
    begun = time.process_time()
    sentence_starts(piece * 200_000)
    assert time.process_time() - begun < 3.0


@pytest.mark.parametrize(
    ("text", "at", "cut"),
    [
        ("abc", 2, 2),
        ("cafe\u0301s", 4, 3),  # an accent stays on its letter
        ("a👩‍🚀b", 3, 1),
        ("a👍🏽b", 2, 1),
        ("a🇩🇪🇫🇷b", 2, 1),
        ("a🇩🇪🇫🇷b", 3, 3),
        ("a\r\nb", 2, 1),
        ("e" + "\u0301" * 5, 3, 3),  # nothing but one character: it is cut all the same
    ],
)
def test_what_is_one_character_is_not_parted(text: str, at: int, cut: int) -> None:
    assert whole(text, at, 0) == cut
