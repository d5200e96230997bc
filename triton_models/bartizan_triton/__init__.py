"""From a tower to what serves it: ONNX export behind a parity gate."""
