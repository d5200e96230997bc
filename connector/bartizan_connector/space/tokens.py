"""Text to token ids exactly as a tower's spec says: nowhere else are prefixes or special tokens added, or text cut."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from bartizan_connector.base.deadline import heed
from bartizan_connector.base.errors import NotAText, SpaceMismatch, Stop, WrongUse, missing_extra
from bartizan_connector.space.canonical import digest_of
from bartizan_connector.space.spec import Role, RoleSpec, TowerSpec

try:
    from tokenizers import Encoding, Tokenizer
except ImportError as error:
    raise missing_extra("tokenizers", "local") from error

TOKENIZER_FILE = "tokenizer.json"
PADDING_ID = 0
"""Fills short rows. Every engine masks padding, so any id of the vocabulary would do."""
_AT_ONCE = 1_000
"""So many texts are read between two looks at the clock."""
_HASH_DOMAIN = "bartizan.tokenizer/1"
_SECTIONS_THAT_CHANGE_NO_TOKEN = frozenset({"truncation", "padding"})
"""Bartizan cuts and pads by the spec, whatever the file was saved with."""


@dataclass(frozen=True, slots=True)
class Tokenized:
    """One text as a tower reads it."""

    ids: list[int]
    length: int
    """Tokens, special ones included, before the text was cut."""

    @property
    def truncated(self) -> bool:
        """Whether the tower does not see the whole text."""
        return self.length > len(self.ids)


class Tokens:
    """A tower's tokenizer: prefix, pieces, cut on the right, special tokens. Safe to share between threads."""

    def __init__(
        self, text: str, *, roles: Mapping[Role, RoleSpec], special_tokens: Literal["template", "none"] = "template"
    ) -> None:
        self.text = text
        """The tokenizer.json."""
        self.hash = tokenizer_hash(text)
        self.roles = dict(roles)
        self._template = special_tokens == "template"
        self._tokenizer = _tokenizer(text)
        self._special = self._tokenizer.num_special_tokens_to_add(False) if self._template else 0
        for role, spec in self.roles.items():
            if spec.max_tokens <= self._special:
                raise WrongUse(
                    f"max_tokens = {spec.max_tokens} for {role} leaves no room for text: "
                    f"the tokenizer adds {self._special} special tokens"
                )

    @classmethod
    def read(cls, folder: Path, spec: TowerSpec) -> Self:
        """The tokenizer beside a spec; a file that the spec was not made with is refused."""
        path = folder / TOKENIZER_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise Stop(f"{folder} has no {TOKENIZER_FILE}; import, train or export the tower again") from error
        except UnicodeDecodeError as error:
            raise Stop(f"{path} is damaged: {error}; import, train or export the tower again") from error
        tokens = cls(text, roles=spec.roles, special_tokens=spec.special_tokens)
        if tokens.hash != spec.tokenizer_hash:
            raise SpaceMismatch(
                f"{path} is not the tokenizer that tower '{spec.name}' was made with "
                f"(expected hash {spec.tokenizer_hash[:12]}…, got {tokens.hash[:12]}…)",
                expected=spec.space_id,
                came="another tokenizer",
                way_out="Put the original file back, or import the tower again.",
            )
        return tokens

    def write(self, folder: Path) -> None:
        """Save the tokenizer beside a spec."""
        (folder / TOKENIZER_FILE).write_text(self.text, encoding="utf-8")

    def serving(self, roles: Mapping[Role, RoleSpec], special_tokens: Literal["template", "none"]) -> "Tokens":
        """The same tokenizer for other roles."""
        return Tokens(self.text, roles=roles, special_tokens=special_tokens)

    @property
    def adds_special(self) -> bool:
        """Whether a text gets the special tokens of the tokenizer's template."""
        return self._template

    @property
    def vocabulary(self) -> int:
        """How many different ids can come out."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def room(self, role: Role) -> int:
        """How many tokens of a text the tower reads, beside its prefix and the special tokens."""
        return self.roles[role].max_tokens - self._around(role)

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """The tokens of each text, without its prefix and the special tokens."""
        around = self._around(role)
        return [each.length - around for each in self.encode(texts, role)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """From which character to which each token of the bare text reaches, in order."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)

    def _around(self, role: Role) -> int:
        return self._special + len(self._tokenizer.encode(self.roles[role].prefix, add_special_tokens=False))

    def encode(self, texts: Sequence[str], role: Role, *, deadline: float | None = None) -> list[Tokenized]:
        """The ids of each text. A text without a single token becomes one padding token, so that it has a vector.
        Raises Retry when the deadline, a moment of `time.monotonic`, has passed."""
        spec = self.roles.get(role)
        if spec is None:
            raise WrongUse(f"this tower encodes {', '.join(sorted(self.roles))} only, but was asked for {role} tokens")
        if isinstance(texts, str):
            raise WrongUse("expected a list of texts, got one text; put it into a list")
        for position, text in enumerate(texts):
            if not isinstance(text, str):  # the library would take a pair of texts for one text
                raise NotAText(f"text {position} is of type {type(text).__name__}, expected str")
        room = spec.max_tokens - self._special
        prefixed = [spec.prefix + text for text in texts] if spec.prefix else list(texts)
        tokenized: list[Tokenized] = []
        for start in range(0, len(prefixed), _AT_ONCE):
            heed(deadline)
            try:
                encodings = self._tokenizer.encode_batch_fast(
                    prefixed[start : start + _AT_ONCE], add_special_tokens=False
                )
            except TypeError as error:
                raise _blame(texts) from error
            tokenized += [self._cut(encoding, room) for encoding in encodings]
        return tokenized

    def _cut(self, encoding: Encoding, room: int) -> Tokenized:
        length = len(encoding) + self._special
        encoding.truncate(room)
        if self._template:
            encoding = self._tokenizer.post_process(encoding)
        return Tokenized(encoding.ids or [PADDING_ID], length)


def tokenizer_hash(text: str) -> str:
    """Identity of a tokenizer.json: equal when every text gives the same pieces; layout and key order do not count."""
    try:
        facts = json.loads(text)
        if not isinstance(facts, dict):
            raise TypeError(f"expected a JSON object, got {type(facts).__name__}")
        kept = {key: value for key, value in facts.items() if key not in _SECTIONS_THAT_CHANGE_NO_TOKEN}
        return digest_of(kept, domain=_HASH_DOMAIN)
    except (ValueError, TypeError) as error:
        raise Stop(f"the {TOKENIZER_FILE} is damaged: {error}; import, train or export the tower again") from error


def _tokenizer(text: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the Rust library raises a bare Exception for every unreadable file
        raise Stop(f"the {TOKENIZER_FILE} cannot be read: {error}; import, train or export the tower again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _blame(texts: Sequence[str]) -> NotAText:
    """Name the text that the tokenizer refused; half of a surrogate pair is what a str can hold and UTF-8 cannot."""
    for position, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return NotAText(f"text {position} is not valid Unicode ({error.reason} at character {error.start})")
    return NotAText("the tokenizer refused these texts")
