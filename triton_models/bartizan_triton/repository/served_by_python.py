"""What Triton's Python backend runs: ONNX Runtime on the version's own model; copied into each version as `model.py`.

It stands alone, since it runs in the server's environment: numpy, onnxruntime and Triton's own module, nothing else.
Requests that wait together are joined into batches of like width. A request that is at fault is refused alone.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend

INPUTS = ("input_ids", "attention_mask")
_WIDER = 1.5
"""A batch is padded to its widest text: one that is so many times as wide as the narrowest begins the next batch."""


Given = tuple[int, Any, Any]
"""A request's place, and its two arrays."""


class TritonPythonModel:
    """One instance of one version."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"]["intra_op_thread_count"]["string_value"])
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        here: list[Any] = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU":
            here.insert(0, ("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}))
        path = os.path.join(folder, "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=here)
        self._outputs = [output["name"] for output in config["output"]]
        self._most = config["max_batch_size"]
        with open(os.path.join(folder, "tower.json"), encoding="utf-8") as file:
            self._longest = max(role["max_tokens"] for role in json.load(file)["roles"].values())

    def execute(self, requests: list[Any]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        given = []
        for position, request in enumerate(requests):
            ids, mask = (backend.get_input_tensor_by_name(request, name).as_numpy() for name in INPUTS)
            if request.is_cancelled():
                answers[position] = _refused("the client has cancelled the request", "CANCELLED")
            elif ids.shape != mask.shape or not ids.size:
                answers[position] = _refused(
                    f"input_ids of shape {list(ids.shape)} and attention_mask of shape {list(mask.shape)}: expected "
                    "one shape, and a token or more"
                )
            elif ids.shape[1] > self._longest:
                answers[position] = _refused(
                    f"{ids.shape[1]} tokens: the tower takes {self._longest} at most; cut the text as its spec says"
                )
            else:
                given.append((position, ids, mask))
        for group in self._groups(given):
            self._answer(group, answers)
        return answers

    def _groups(self, given: "list[Given]") -> "Iterator[list[Given]]":
        """Requests of like width, together no more rows than a batch may have."""
        group: list[Given] = []
        rows = 0
        for one in sorted(given, key=lambda one: one[1].shape[1]):
            too_wide = group and one[1].shape[1] > _WIDER * group[0][1].shape[1]
            if group and (too_wide or rows + len(one[1]) > self._most):
                yield group
                group, rows = [], 0
            group.append(one)
            rows += len(one[1])
        if group:
            yield group

    def _answer(self, group: "list[Given]", answers: list[Any]) -> None:
        try:
            found = self._session.run(self._outputs, dict(zip(INPUTS, _joined(group), strict=True)))
        except Exception as error:  # noqa: BLE001  the library has no common root; whatever it was, the client is told
            if len(group) > 1:
                for one in group:
                    self._answer([one], answers)
            else:
                answers[group[0][0]] = _refused(f"ONNX Runtime refused this request: {error}")
            return
        start = 0
        for position, ids, _ in group:
            rows = [values[start : start + len(ids)] for values in found]
            tensors = [backend.Tensor(name, row) for name, row in zip(self._outputs, rows, strict=True)]
            answers[position] = backend.InferenceResponse(tensors)
            start += len(ids)


def _joined(group: "list[Given]") -> list[Any]:
    """One batch, padded on the right."""
    if len(group) == 1:
        return list(group[0][1:])
    width = max(ids.shape[1] for _, ids, _ in group)
    return [
        np.concatenate([np.pad(values, ((0, 0), (0, width - values.shape[1]))) for values in arrays])
        for arrays in zip(*(one[1:] for one in group), strict=True)
    ]


def _refused(why: str, code: str = "INVALID_ARG") -> Any:
    """The server gives its module these classes after it has imported this file: they are looked up when needed."""
    error = backend.TritonError
    return backend.InferenceResponse(error=error(why, getattr(error, code)))
