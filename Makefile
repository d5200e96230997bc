# One entry for everything; each target makes what it needs.
PYTHON ?= python3
UV_VERSION = 0.13.8
VENV = .venv/bin

.PHONY: env demo test check lint bench gpu lock clean

env: .venv/.stamp

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Bartizan needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.stamp: requirements.lock pyproject.toml | .tools/bin/uv
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv
	UV_COMPILE_BYTECODE=1 .tools/bin/uv pip sync --quiet --python $(VENV)/python --require-hashes requirements.lock
	.tools/bin/uv pip install --quiet --python $(VENV)/python --no-deps --editable .
	@touch $@

demo: env
	$(VENV)/bartizan demo

lint: env
	$(VENV)/python tests/lanes.py lint

check: env
	$(VENV)/python tests/lanes.py lint default

test: env
	$(VENV)/python tests/lanes.py

bench: env
	$(VENV)/python -m benchmarks

gpu: env
	$(VENV)/pytest -m gpu
	@if $(VENV)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(VENV)/python -m benchmarks training_throughput; \
	else echo "no CUDA device: the benchmark of training was left out"; fi

lock: .tools/bin/uv
	.tools/bin/uv pip compile pyproject.toml --extra all --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --upgrade --output-file requirements.lock

clean:
	rm -rf .venv .tools build dist
