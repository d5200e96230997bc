"""Texts as counted terms: runs of letters and digits, lower case, no accents, English endings cut (Porter, 1980).

A term is a number made of its letters. Two words of one number are one to the index: among 300,000 words that is some
ten pairs.
"""

import re
import unicodedata
import zlib
from collections import Counter
from functools import lru_cache

import numpy as np

from bartizan_connector.space.vectors import SparseVector

MAX_WORDS = 256
"""Different words of one query that are looked up."""
_LONGEST = 64
"""Longer runs of letters are no words."""
_NO_TERM = -1
_WORD = re.compile(r"[^\W_]+")
_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize", "ion",
    "al", "er", "ic", "ou",
)  # fmt: skip


def terms_of(text: str) -> Counter[int]:
    """Term → how often it occurs."""
    if not text.isascii():
        text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    counts = Counter(map(_number, _WORD.findall(text.lower())))
    del counts[_NO_TERM]
    return counts


def counted(text: str) -> bytes:
    """A row's text as it is stored, in the layout of a sparse vector: its terms, rising, then how often each occurs."""
    counts = terms_of(text)
    terms = sorted(counts)
    return np.array(terms, "<i4").tobytes() + np.array([counts[term] for term in terms], "<f4").tobytes()


def asked(text: str) -> SparseVector:
    """A query's text: the words that occur most, weighted by how often they do."""
    counts = sorted(terms_of(text).most_common(MAX_WORDS))
    return SparseVector(
        np.array([term for term, _ in counts], np.int32), np.array([count for _, count in counts], np.float32)
    )


@lru_cache(1 << 17)
def _number(word: str) -> int:
    if len(word) > _LONGEST:
        return _NO_TERM
    return zlib.crc32(stem(word).encode(errors="replace")) & 0x7FFFFFFF


def stem(word: str) -> str:
    """The word without its English endings; a word of other letters or with digits stays as it is."""
    if len(word) < 3 or not word.isascii() or not word.isalpha():
        return word
    word = _inflected(word)
    for endings in (_STEP_2, _STEP_3):
        for size in range(min(7, len(word) - 1), 1, -1):
            if word[-size:] in endings:
                if _measure(word[:-size]) > 0:
                    word = word[:-size] + endings[word[-size:]]
                break
    for ending in _STEP_4:
        if word.endswith(ending):
            left = word[: -len(ending)]
            if _measure(left) > 1 and (ending != "ion" or left[-1:] in ("s", "t")):
                word = left
            break
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _inflected(word: str) -> str:
    """Step 1: plurals, -ed, -ing, -y."""
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        if _measure(word[:-3]) > 0:
            word = word[:-1]
    else:
        for ending in ("ed", "ing"):
            if word.endswith(ending):
                left = word[: -len(ending)]
                if _has_vowel(left):
                    word = _mended(left)
                break
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    return word


def _mended(left: str) -> str:
    """What -ed or -ing was cut from."""
    if left.endswith(("at", "bl", "iz")):
        return left + "e"
    if len(left) > 1 and left[-1] == left[-2] and _shape(left)[-1] == "c" and left[-1] not in "lsz":
        return left[:-1]
    return left + "e" if _measure(left) == 1 and _ends_short(left) else left


def _shape(word: str) -> str:
    """`c` for each consonant, `v` for each vowel."""
    shape = ""
    for letter in word:
        consonant = letter not in "aeiou" if letter != "y" else not shape or shape[-1] == "v"
        shape += "c" if consonant else "v"
    return shape


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    return _shape(word).count("vc")


def _has_vowel(word: str) -> bool:
    return "v" in _shape(word)


def _ends_short(word: str) -> bool:
    """Consonant, vowel, consonant, and the last is none of w, x, y."""
    return len(word) > 2 and _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"
