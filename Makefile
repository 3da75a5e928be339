# One command each. Packages live in $(VENV), builds in build/ and facemix_ops/; the demo caches in ~/.cache/facemix.
PYTHON ?= python3
VENV   ?= .venv
# The CPU build of PyTorch, by name, so that nobody downloads gigabytes of CUDA libraries by accident: macOS has no other.
# For a GPU: make TORCH='torch' TORCH_INDEX= demo
TORCH       ?= torch==2.13.0$(if $(filter Linux,$(shell uname)),+cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Of this package. setuptools installs what an earlier build left in build/lib, files that are gone since included.
INSTALL := rm -rf build/lib build/lib.* && $(PIP) install

.PHONY: help demo test test-cpp test-web check-cuda lint format bench bench-report bench-service install install-dev clean
help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# PyTorch first, from the index of its CPU builds; then nothing later asks for another one.
$(VENV)/.torch: | $(BIN)/python
	$(PIP) install --retries 2 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)'
	@touch $@

install: $(VENV)/.torch  ## build and install with the pipeline (a minute or two)
	$(INSTALL) '.[pipeline]'

# A goal of its own, so that `make test test-web lint` builds once.
install-dev: $(VENV)/.torch  ## build and install with all that tests and linters need
	$(INSTALL) '.[dev]'

demo: install  ## train on real faces, with and without mixing, and classify them through a cloud process
	$(BIN)/facemix demo $(ARGS)

# Two processes of one thread each: small tests with more only wait for each other. What is about threads sets them.
test: install-dev  ## build, install, and run all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

test-cpp: | $(BIN)/python  ## build and test the C++ library: here, with sanitizers, and on AArch64 in QEMU
	$(PIP) install 'cmake>=3.24' 'ninja>=1.11'
	PATH="$(abspath $(BIN)):$$PATH" .ci/test-cpp

test-web: install-dev  ## test the demo's page in Chromium, which must be there (CHROMIUM=path, or on the PATH)
	$(BIN)/pytest tests/web $(ARGS)

check-cuda: $(VENV)/.torch  ## compile the CUDA kernels with nvcc, look for spills, run the PTX; needs no GPU
	$(PIP) install 'numpy>=2.0' 'pytest>=8' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6' nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
	PYTHON="$(abspath $(BIN))/python" .ci/check-cuda

lint: install-dev  ## ruff, clang-format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.c' '*.cpp' '*.h' '*.cu')
	$(BIN)/mypy

format: install-dev  ## rewrite all sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.c' '*.cpp' '*.h' '*.cu')

bench: $(VENV)/.torch  ## race the kernels against PyTorch and ONNX Runtime on this machine
	$(INSTALL) '.[bench]'
	@mkdir -p .benchmarks
	$(BIN)/pytest benchmarks --timeout=1800 --disable-warnings --benchmark-quiet --benchmark-min-rounds=15 \
		--benchmark-json=.benchmarks/cpu.json $(ARGS)

bench-report: $(VENV)/.torch  ## the tables of the README and of docs/, and the roofline chart, from benchmarks/results
	$(INSTALL) '.[bench]'
	$(BIN)/python benchmarks/report.py --docs --chart benchmarks/results/roofline.png $(ARGS)

bench-service: $(VENV)/.torch  ## the service on loopback: under load, for ten minutes, and against a network in one piece
	$(INSTALL) '.[bench,kserve]'
	$(BIN)/python benchmarks/service.py --minutes 10 $(ARGS)

clean:  ## remove what was built, and the environment; not caches, nor what the commands wrote
	rm -rf build dist *.egg-info $(VENV) facemix_ops/_C*.so
