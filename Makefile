# One entry for everything; each target makes what it needs.
PYTHON ?= python3
UV_VERSION = 0.13.8
VENV = .venv/bin

.PHONY: env demo demo-stream test check lint bench soak gpu triton triton-env infinity-env lock clean

env: .venv/.stamp

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Bartizan needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Everything that the lanes of the tests need. uv shows bars on a terminal; elsewhere a line every ten seconds says how far it is.
.venv/.stamp: requirements.lock pyproject.toml | .tools/bin/uv
	@echo "making .venv: $$(grep -c '==' requirements.lock) packages, 6.5 GB on Linux, most of it torch with CUDA; what uv has in its cache is not fetched again"
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv
	@export UV_COMPILE_BYTECODE=1; if [ -t 2 ]; \
	then .tools/bin/uv pip sync --python $(VENV)/python --require-hashes requirements.lock; \
	else \
	  .tools/bin/uv pip sync --quiet --python $(VENV)/python --require-hashes requirements.lock & uv=$$!; \
	  while sleep 10 && kill -0 $$uv 2>/dev/null; do echo "making .venv: $$(du -sm .venv | cut -f1) of about 6,500 MB are there"; done & lines=$$!; \
	  wait $$uv; code=$$?; kill $$lines 2>/dev/null; exit $$code; \
	fi
	.tools/bin/uv pip install --quiet --python $(VENV)/python --no-deps --editable .
	@touch $@

# The real Triton server that a wheel carries, in an environment of its own (docs/triton.md). Its Python backend needs the
# stub of this Python beside it.
TRITON = .venv-triton
triton-env: $(TRITON)/.stamp

$(TRITON)/.stamp: tests/servers/triton.lock | .tools/bin/uv
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) $(TRITON)
	UV_COMPILE_BYTECODE=1 .tools/bin/uv pip sync --quiet --python $(TRITON)/bin/python --require-hashes tests/servers/triton.lock
	cd $(TRITON)/lib/python3.*/site-packages/pytriton/tritonserver && version=$$(ls -d ../../../../python3.*) && \
	  cp python_backend_stubs/$${version##*/python}/triton_python_backend_stub backends/python/
	@touch $@

# make triton REPO=folder: serve a model repository on loopback until interrupted.
triton: env triton-env
	$(VENV)/python -m tests.servers.triton $(REPO)

# The server beside which a hop to Triton is measured (benchmarks/infinity.py).
INFINITY = .venv-infinity
infinity-env: $(INFINITY)/.stamp

$(INFINITY)/.stamp: | .tools/bin/uv
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) $(INFINITY)
	UV_COMPILE_BYTECODE=1 .tools/bin/uv pip install --quiet --python $(INFINITY)/bin/python \
	  'infinity-emb[server,optimum]==0.0.78' 'optimum-onnx==0.1.0' 'transformers==4.57.6'
	@touch $@

demo: env
	$(VENV)/bartizan demo

# A broker, a store and a worker on this machine, and a stream of edits; needs Java, and Maven to bring the broker.
demo-stream: env
	$(VENV)/bartizan demo-stream --jars .tools/kafka

lint: env
	$(VENV)/python tests/lanes.py lint

check: env
	$(VENV)/python tests/lanes.py lint default

test: env
	$(VENV)/python tests/lanes.py

bench: env
	$(VENV)/python -m benchmarks

# Kills and rivals by the hundred, which tests try by twos and threes, stories of Kafka workers and servers that die, and
# 200,000 requests through the real Triton server with the memory of both sides.
SOAKS = embedded words writers stream
soak: env triton-env
	for soak in $(SOAKS); do $(VENV)/python -m tests.soak $$soak || exit 1; done
	$(VENV)/python -m benchmarks soak_triton

gpu: env
	$(VENV)/pytest -m gpu
	@if $(VENV)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(VENV)/python -m benchmarks training_throughput && \
	  $(VENV)/python -m benchmarks recipes --recipe scalingnote-small --recipe csplade-small --collection nfcorpus; \
	else echo "no CUDA device: the benchmarks of training were left out"; fi

lock: .tools/bin/uv
	.tools/bin/uv pip compile pyproject.toml --extra all --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --upgrade --output-file requirements.lock
	.tools/bin/uv pip compile tests/servers/triton.in --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --output-file tests/servers/triton.lock

clean:
	rm -rf .venv $(TRITON) $(INFINITY) .tools build dist
