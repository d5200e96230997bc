"""Tokenizers that are trained on the texts at hand, with the special pieces that each family is published with.

Pieces are found by byte-pair merges, which come out the same at every run. As the `tokenizers` library trains them,
neither the unigram model of the published T5 does nor BERT's WordPiece.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from bartizan_connector.base.errors import WrongUse
from bartizan_training.pretraining.sizes import Family

SENTINELS = 100
"""As many holes as the published T5 has names for: `<extra_id_0>` is the last piece of its vocabulary."""
_SPECIAL: Mapping[Family, Mapping[str, str]] = {
    "t5": {"pad": "<pad>", "end": "</s>", "unknown": "<unk>"},
    "llama": {"pad": "<|pad|>", "end": "<|end|>"},
    "bert": {"pad": "[PAD]", "unknown": "[UNK]", "first": "[CLS]", "end": "[SEP]", "mask": "[MASK]"},
}
_PUBLISHED = {
    "pad": "pad_token",
    "end": "eos_token",
    "unknown": "unk_token",
    "first": "cls_token",
    "mask": "mask_token",
}


@dataclass(frozen=True, slots=True)
class Pieces:
    """A tokenizer, and the ids of its special pieces by what they are for."""

    family: Family
    text: str
    """A tokenizer.json."""

    @property
    def size(self) -> int:
        """Pieces, special ones included."""
        return Tokenizer.from_str(self.text).get_vocab_size()

    @property
    def special(self) -> dict[str, int]:
        """Ids by purpose: pad, end, and what else the family has."""
        made = Tokenizer.from_str(self.text)
        found = {purpose: made.token_to_id(piece) for purpose, piece in _SPECIAL[self.family].items()}
        if lacking := [_SPECIAL[self.family][purpose] for purpose, id in found.items() if id is None]:
            raise WrongUse(f"a {self.family} needs the pieces {', '.join(lacking)}, which the tokenizer does not have")
        return {purpose: id for purpose, id in found.items() if id is not None}

    @property
    def sentinels(self) -> tuple[int, ...]:
        """Names of holes, in the order in which they are given."""
        made = Tokenizer.from_str(self.text)
        found = [made.token_to_id(f"<extra_id_{number}>") for number in range(SENTINELS)]
        known = tuple(id for id in found if id is not None)
        if len(known) < SENTINELS:
            raise WrongUse(f"a t5 needs the pieces <extra_id_0> to <extra_id_{SENTINELS - 1}> for holes in a text")
        return known

    def publish(self, folder: Path, most_tokens: int) -> None:
        """Write it beside a model, as transformers reads it."""
        names = {_PUBLISHED[purpose]: piece for purpose, piece in _SPECIAL[self.family].items()}
        if self.family == "bert":
            names["sep_token"] = names.pop("eos_token")
        untyped: Any = PreTrainedTokenizerFast
        untyped(tokenizer_object=Tokenizer.from_str(self.text), model_max_length=most_tokens, **names).save_pretrained(
            folder
        )


def trained(family: Family, texts: Sequence[str], vocabulary: int) -> Pieces:
    """A tokenizer of at most so many pieces, special ones included."""
    special = list(_SPECIAL[family].values())
    room = vocabulary - (SENTINELS if family == "t5" else 0)
    least = len(special) + (256 if family == "llama" else 32)
    if room < least:
        raise WrongUse(
            f"vocabulary = {vocabulary} leaves no room for words; a {family} needs {least + vocabulary - room}"
        )
    if family == "llama":
        made, trainer = _bytes(special, room)
    else:
        normalizer = normalizers.NFKC() if family == "t5" else normalizers.BertNormalizer()
        made, trainer = _marked_words(_SPECIAL[family]["unknown"], normalizer, special, room)
    made.train_from_iterator(texts, trainer)
    if family == "t5":
        made.add_special_tokens([f"<extra_id_{number}>" for number in reversed(range(SENTINELS))])
        made.post_processor = _template("$A </s>", made, ["</s>"])
    elif family == "bert":
        made.post_processor = _template("[CLS] $A [SEP]", made, ["[CLS]", "[SEP]"])
    return Pieces(family, str(made.to_str()))


def _marked_words(unknown: str, normalizer: Any, special: list[str], room: int) -> tuple[Tokenizer, Any]:
    made = Tokenizer(models.BPE(unk_token=unknown))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made, trainers.BpeTrainer(vocab_size=room, special_tokens=special, show_progress=False)


def _bytes(special: list[str], room: int) -> tuple[Tokenizer, Any]:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return made, trainers.BpeTrainer(
        vocab_size=room, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )


def _template(form: str, made: Tokenizer, special: Sequence[str]) -> Any:
    ids = [(piece, made.token_to_id(piece)) for piece in special]
    return processors.TemplateProcessing(single=form, special_tokens=ids)
