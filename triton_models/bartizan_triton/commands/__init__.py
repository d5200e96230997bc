"""The sub-commands that triton_models adds to `bartizan`."""
