"""A tiny encoder that has learned nothing yet, for a demo that needs neither model hub nor packaged weights."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bartizan_encoders.backbone import quiet_transformers

VOCABULARY = 6000
LAYERS = 4
WIDTH = 128
MAX_TOKENS = 64
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def write(texts: Iterable[str], folder: Path, *, seed: int) -> None:
    """Save a Hugging Face model: word pieces learned from the texts, weights drawn at random."""
    folder.mkdir(parents=True, exist_ok=True)
    library: Any = transformers
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=_word_pieces(texts), model_max_length=MAX_TOKENS, **_SPECIAL
    )
    tokenizer.save_pretrained(folder)
    config = library.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=MAX_TOKENS,
    )
    torch.manual_seed(seed)
    with quiet_transformers():
        library.BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def _word_pieces(texts: Iterable[str]) -> Any:
    """BERT's kind of tokenizer, with a vocabulary of its own."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    vocabulary = {piece: number for number, piece in enumerate([*_SPECIAL.values(), *_frequent_pieces(words)])}
    tokenizer: Any = Tokenizer(models.WordPiece(vocabulary, unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splitter, decoders.WordPiece()
    first, last = _SPECIAL["cls_token"], _SPECIAL["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(token, vocabulary[token]) for token in (first, last)]
    )
    return tokenizer


def _frequent_pieces(words: Counter[str]) -> list[str]:
    """Every letter, the most frequent words, and the most frequent beginnings and ends of words. (The library's own
    trainer breaks ties by chance: the same seed would not give the same tower.)"""
    letters = sorted({letter for word in words for letter in word})
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for border in range(2, len(word) - 1):
            parts[word[:border]] += count
            parts[f"##{word[border:]}"] += count
    pieces = dict.fromkeys([*letters, *(f"##{letter}" for letter in letters)])
    for source, share in ((words, 0.7), (parts, 1.0)):
        ranked = sorted(source, key=lambda piece: (-source[piece], piece))
        for piece in ranked[: max(0, round(VOCABULARY * share) - len(pieces))]:
            pieces.setdefault(piece)
    return list(pieces)
