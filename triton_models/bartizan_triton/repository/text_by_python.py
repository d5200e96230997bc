"""What Triton's Python backend runs for clients that cannot tokenise: texts of one role to the vectors of a model.

It stands alone, since it runs in the server's environment: numpy, tokenizers and Triton's own module, nothing else.
Prefix, cut and special tokens are those of the spec beside it, exactly as `bartizan_connector.space.tokens` has them.
The texts of all requests that wait together go to the model as one batch, to the very version that is configured.
"""

import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as backend
from tokenizers import Tokenizer


class TritonPythonModel:
    """One instance; role, model and version stand in the configuration."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        said = {name: value["string_value"] for name, value in config["parameters"].items()}
        self._model, self._version = said["bartizan.model"], int(said["bartizan.version"])
        self._outputs = [output["name"] for output in config["output"] if output["name"] != "tokens"]
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "tower.json"), encoding="utf-8") as file:
            spec = json.load(file)
        role = spec["roles"][said["bartizan.role"]]
        self._prefix = role["prefix"]
        self._template = spec["special_tokens"] == "template"
        self._tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special = self._tokenizer.num_special_tokens_to_add(False) if self._template else 0
        self._room = role["max_tokens"] - self._special

    def execute(self, requests: list[Any]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        texts: list[str] = []
        places = []
        for position, request in enumerate(requests):
            raw = backend.get_input_tensor_by_name(request, "text").as_numpy()[:, 0]
            try:
                mine = [self._prefix + (text if isinstance(text, str) else text.decode("utf-8")) for text in raw]
            except UnicodeDecodeError as fault:
                answers[position] = _refused(f"a text is not valid UTF-8: {fault}")
                continue
            places.append((position, slice(len(texts), len(texts) + len(mine))))
            texts += mine
        if texts:
            tensors, error = self._encoded(texts)
            for position, rows in places:
                parts = [backend.Tensor(name, values[rows]) for name, values in tensors]
                answers[position] = backend.InferenceResponse(parts) if error is None else _failed(error)
        return answers

    def _encoded(self, texts: list[str]) -> tuple[list[tuple[str, Any]], Any]:
        """The model's outputs and the token counts, or its error."""
        ids, lengths = [], []
        for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            lengths.append(len(encoding) + self._special)
            encoding.truncate(self._room)
            if self._template:
                encoding = self._tokenizer.post_process(encoding)
            ids.append(encoding.ids or [0])
        padded = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
        mask = np.zeros_like(padded)
        for row, each in enumerate(ids):
            padded[row, : len(each)] = each
            mask[row, : len(each)] = 1
        request = backend.InferenceRequest(
            model_name=self._model,
            model_version=self._version,
            requested_output_names=self._outputs,
            inputs=[backend.Tensor("input_ids", padded), backend.Tensor("attention_mask", mask)],
        )
        answer = request.exec()
        if answer.has_error():
            return [], answer.error()
        found = [(name, backend.get_output_tensor_by_name(answer, name).as_numpy()) for name in self._outputs]
        return [*found, ("tokens", np.array(lengths, dtype=np.int32).reshape(-1, 1))], None


def _refused(why: str) -> Any:
    error = backend.TritonError
    return backend.InferenceResponse(error=error(why, error.INVALID_ARG))


def _failed(error: Any) -> Any:
    return backend.InferenceResponse(error=backend.TritonError(error.message(), error.code()))
