"""Where the sentences of a text begin: after a full stop of any script, at a line that starts anew.

The answer steers where a long text is cut, so a boundary too few or too many costs no text. What a full stop after an
abbreviation, an initial or a number looks like is no end, nor is one before a small letter.
"""

import re
import unicodedata

_ABBREVIATED = (
    "adj adm al approx apr art aug ave bd bros bzw ca cap capt cf ch chap cmdr co col corp dec dept dr ed eds eg em eq "
    "eqs esp est etc ex exc excl ext feb fig figs ft gen gov hr ie incl inc inst jan jr jul jun lat lieut lt ltd mar "
    "max min misc mr mrs ms mt mts nat no nos nov nr oct op orig par para ph pl pp pres prof pt pub ref refs rep rev "
    "sc sec sect sen sep sept ser sgt sp sr st str suppl tab tel trans ud univ usw vgl viz vol vols vs zb"
)
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_CLOSING = "\"'”’»)\\]}」』】〉》）］"
_STOPS = ".!?…‽؟۔।॥"
_END = re.compile(  # linear in the text, whatever it is: a run is looked at once, from its beginning
    rf"(?<![{_STOPS}])[{_STOPS}]++[{_CLOSING}]*+\s++"  # a space belongs to the end of a sentence
    rf"|[。！？｡．]++[{_CLOSING}]*+\s*+"  # these need none
    r"|\n\s*+"
)
_WORD = re.compile(r"[\w.]+\Z")
_LOOK_BACK = 40
"""Characters in which the word before a full stop is looked for."""


def sentence_starts(text: str) -> list[int]:
    """Where each sentence but the first begins, rising; the space before belongs to the one that ends there."""
    return [found.end() for found in _END.finditer(text) if 0 < found.end() < len(text) and _is_end(text, found)]


def whole(text: str, at: int, least: int) -> int:
    """The place to cut, moved back (never to `least`) so that no character is parted from the marks that belong to it,
    and no emoji from its joined parts."""
    cut = at
    while cut > least and 0 < cut < len(text) and _is_joined(text, cut):
        cut -= 1
    return cut if cut > least else at


def _is_end(text: str, found: re.Match[str]) -> bool:
    said = found[0]
    following = text[found.end()]
    if said[0] in ("。", "！", "？", "｡", "．"):
        return True
    if "\n" in said:  # prose may be wrapped: a line that goes on begins with a small letter
        return "\n" in said.replace("\n", "", 1) or not following.islower()
    if following.islower():
        return False
    return not said.startswith(".") or said.startswith("..") or not _is_abbreviated(text, found.start())


def _is_abbreviated(text: str, stop: int) -> bool:
    """Whether the full stop at that place belongs to the word before it."""
    word = _WORD.search(text[max(0, stop - _LOOK_BACK) : stop])
    if word is None:
        return False
    last = word[0].rpartition(".")[2]
    if len(last) == 1 and last.isalpha():  # an initial, or the end of U.S. and e.g.
        return last != "I"
    return last.lower() in _ABBREVIATIONS


def _is_joined(text: str, cut: int) -> bool:
    """Whether the character at `cut` is one with the one before."""
    before, after = text[cut - 1], text[cut]
    if before == "\r" and after == "\n":
        return True
    if "\u200d" in (before, after) or unicodedata.combining(after) or unicodedata.category(after) in ("Mn", "Mc", "Me"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff":  # the colour of a skin
        return True
    return _is_flag(before) and _is_flag(after) and _flags_before(text, cut) % 2 == 1


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flags_before(text: str, cut: int) -> int:
    start = cut
    while start > 0 and _is_flag(text[start - 1]):
        start -= 1
    return cut - start
