"""Golden texts: what an export is compared on, of every length that the tower takes and of many kinds of script."""

from collections.abc import Sequence

_STATEMENTS = (
    "The tide gauge at the harbour recorded a level 40 cm above the forecast, and the lower quay was closed.",
    "Mutations in the BRCA1 gene raise the risk of breast and ovarian cancer; see doi:10.1038/ng0594-8.",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)  # ZeroDivisionError when empty",
    "Wie lange ist eine gekühlte Probe haltbar? Höchstens 48 Stunden, sofern die Kühlkette nicht unterbrochen wird.",
    "Le musée ouvre à 9 h 30 ; l'entrée coûte 12,50 €, tarif réduit pour les étudiants.",
    "東京の天気は晴れ、最高気温は23度です。",
    "Сколько стоит билет на поезд до Казани?",
    "كم تبعد المدينة عن الساحل؟",
    "SELECT name, COUNT(*) FROM visits WHERE year >= 2020 GROUP BY name HAVING COUNT(*) > 10;",
    "Error 0x80070005: access denied while writing to C:\\ProgramData\\cache\\index-07.bin (retry 3/5)",
    "🙂 works 4 me!!! v1.2.3-rc4 ~50% off :-) https://example.org/a?b=c&d=%20e",
    "how do i reset my password",
)
_CORNERS = ("", " ", "a", "?", "\t\n", "ÀÉÎÕÜ", "supercalifragilisticexpialidocious" * 3, "0" * 60, "a\u0301\u200d🏽")

OPENING_TEXTS = (
    "",
    "?",
    "a",
    "reset my password",
    "BRCA1 raises the risk",
    "Error 0x8007",
    "Wie lange haltbar?",
    "東京の天気",
    "Где?",
    "🙂 4 me!!!",
    "return sum(values)",
    "The tide gauge at the quay",
)
"""What travels in an export and is encoded wherever it is opened: some eighty tokens, since every opening
waits for it."""


def golden_texts(longest: int) -> list[str]:
    """Corner cases, statements, and runs of words that grow until they pass `longest` tokens (one or more a word)."""
    words = " ".join(_STATEMENTS).split()
    lengths, length = [], 2
    while length < longest:
        lengths.append(length)
        length = max(length + 1, length * 7 // 4)
    lengths.append(longest + 8)
    growing = [
        " ".join(words[(start + 5 * n) % len(words)] for n in range(length)) for start, length in enumerate(lengths)
    ]
    return [*_CORNERS, *_STATEMENTS, *growing]


def mixes(texts: Sequence[str]) -> list[list[int]]:
    """Batches of positions: each text alone, all together, the longest beside the shortest, and three neighbours."""
    order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
    alone = [[position] for position in order]
    extremes = [[order[place], order[-1 - place]] for place in range(len(order) // 2)]
    threes = [order[start : start + 3] for start in range(0, len(order), 3)]
    return [*alone, list(range(len(texts))), list(reversed(order)), *extremes, *threes]
