"""Models as they are published: by Hugging Face, and by sentence-transformers in both generations of its files."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast, T5Tokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from bartizan_encoders import backbone as backbones
from tests.encoders import tiny


def hugging_face(
    folder: Path,
    kind: str = "bert",
    *,
    head: bool = False,
    most: int = 32,
    dtype: torch.dtype = torch.float32,
    **facts: Any,
) -> Path:
    """A model saved by transformers itself; `head` saves the language model around it, as many are published."""
    torch.manual_seed(7)
    config = backbones.configuration(tiny.architecture(kind) | facts)
    with backbones.quiet_transformers():
        mappings = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
        language_model = next(mapping[type(config)] for mapping in mappings if type(config) in mapping)
        model = language_model(config) if head else backbones.build(config.to_dict())
        model.to(dtype).save_pretrained(folder)
    if kind == "t5":
        T5Tokenizer(vocab=_t5_pieces(), model_max_length=most).save_pretrained(folder)
        return folder
    text = tiny.bytes_tokenizer() if kind in tiny.DECODERS else tiny.words_tokenizer()
    (folder / "given.json").write_text(text)
    special = {} if kind in tiny.DECODERS else {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "given.json"),
        model_max_length=most,
        pad_token="<s>" if not special else "[PAD]",
        **special,
    )
    tokenizer.save_pretrained(folder)
    (folder / "given.json").unlink()
    return folder


def _t5_pieces() -> list[tuple[str, float]]:
    """What a sentencepiece model of T5 holds: pieces that begin a word with a mark, and how likely each is."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"\u2581{word}", -1.0 - number / 10) for number, word in enumerate(tiny.WORDS[4:])]
    return [*special, ("\u2581", -2.0), *words, *((letter, -4.0) for letter in tiny.LETTERS)]


def sentence_transformers(
    folder: Path,
    *,
    pooling: dict[str, Any],
    dense: dict[str, Any] | None = None,
    normalize: bool = False,
    settings: dict[str, Any] | None = None,
    sentences: dict[str, Any] | None = None,
    extra: str | None = None,
) -> Path:
    """A folder of modules; `dense` is the Dense module's configuration, `extra` a module that no tower has."""
    hugging_face(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(folder / "1_Pooling" / "config.json", pooling)
    if dense:
        modules.append(("2_Dense", "Dense"))
        _write(folder / "2_Dense" / "config.json", dense)
        save_file(dense_weights(), folder / "2_Dense" / "model.safetensors")
    if normalize:
        modules.append(("3_Normalize", "Normalize"))
    if extra:
        modules.append(("4_Extra", extra))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    _write(folder / "modules.json", listed)
    _write(folder / "config_sentence_transformers.json", settings or {})
    _write(folder / "sentence_bert_config.json", sentences or {"max_seq_length": 24, "do_lower_case": False})
    return folder


def splade(
    folder: Path,
    *,
    transformer: str,
    pooling: dict[str, Any],
    settings: dict[str, Any] | None = None,
    sentences: dict[str, Any] | None = None,
    kind: str = "bert",
) -> Path:
    """A sparse encoder; `transformer` is the type of its first module, which was named anew in 2026."""
    hugging_face(folder, kind, head=True)
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": transformer},
        {"idx": 1, "name": "1", "path": "1_SpladePooling",
         "type": "sentence_transformers.sparse_encoder.models.SpladePooling"},
    ]  # fmt: skip
    _write(folder / "modules.json", listed)
    _write(folder / "1_SpladePooling" / "config.json", pooling)
    _write(folder / "config_sentence_transformers.json", settings or {"model_type": "SparseEncoder"})
    _write(folder / "sentence_bert_config.json", sentences or {"max_seq_length": 24, "do_lower_case": False})
    return folder


def dense_weights() -> dict[str, torch.Tensor]:
    """A linear map from 16 to 4."""
    source = torch.Generator().manual_seed(3)
    return {
        "linear.weight": torch.randn(4, 16, generator=source),
        "linear.bias": torch.randn(4, generator=source),
    }


class Hub(ThreadingHTTPServer):
    """What of the model hub's interface its own client uses to fetch a model's files."""

    def __init__(self, address: tuple[str, int], name: str, folder: Path) -> None:
        super().__init__(address, _HubHandler)
        self.name = name
        self.commit = "c0ffee" + "0" * 34
        (folder / "pytorch_model.bin").write_bytes(b"the same weights, pickled: nobody should fetch them")
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}


class _HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub, path = self.server, self.path.split("?")[0].strip("/")
        if path.startswith(f"api/models/{hub.name}/tree"):
            files = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in hub.files.items()
            ]
            self._answer(json.dumps(files).encode())
        elif path.startswith(f"api/models/{hub.name}"):
            listed = [{"rfilename": name} for name in hub.files]
            self._answer(json.dumps({"id": hub.name, "sha": hub.commit, "siblings": listed}).encode())
        elif path.startswith(f"{hub.name}/resolve/") and path.rsplit("/", 1)[1] in hub.files:
            self._answer(hub.files[path.rsplit("/", 1)[1]])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

    do_HEAD = do_GET

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", hashlib.sha1(body).hexdigest())
        self.send_header("X-Repo-Commit", self.server.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silence."""


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
