# The entry points. `make help` lists them; each is a few lines over CMake and scripts/.
.DEFAULT_GOAL := help
SHELL := /bin/bash

JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PYTHON ?= python3
FUZZ_SECONDS ?= 600
SOAK_ROUNDS ?= 20
DEMO_ARGS ?=
BENCH ?=

# Used when it is there; never required.
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(shell command -v ccache)
export JOBS

.PHONY: help setup servers build venv wheel test engines demo finetune bench sanitize fuzz soak lint format install clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what building needs (Debian 12, as root; skips what is there)
	@scripts/setup.sh build

servers: setup ## install the servers that the tests start (Ceph, Swift, nginx)
	@scripts/setup.sh servers

build: setup ## build the library, the tests and the program build/siltstone
	@cmake --preset release
	@cmake --build --preset release --parallel $(JOBS)

venv: setup
	@PYTHON=$(PYTHON) scripts/venv.sh

wheel: venv ## build the Python package into dist, and check it in a clean environment
	@scripts/wheel.sh

test: build servers wheel ## build and run the whole test suite
	@ctest --preset release -j 2
	@.venv/bin/python -m pytest -q tests/python

engines: wheel ## the tests with a real vLLM (fetches 3.5 GB, once)
	@scripts/engines.sh

demo: wheel ## train a policy with GRPO, generate in another process that follows it, prove every version
	@.venv/bin/python demo/grpo/demo.py --run demo-run $(DEMO_ARGS)

finetune: build venv ## the same way for files: fine-tune a pretrained model, publish and pull folders
	@.venv/bin/python demo/finetune/demo.py --run finetune-run $(DEMO_ARGS)

bench: build ## run the benchmarks (BENCH="word ..." chooses)
	@scripts/bench.sh $(BENCH)

sanitize: servers ## the suite under address+undefined, then under the thread sanitizer
	@scripts/sanitize.sh asan
	@scripts/sanitize.sh tsan

fuzz: setup ## every libFuzzer target for FUZZ_SECONDS (600) each; needs clang
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh $(FUZZ_SECONDS)

soak: build ## the tests with faults, kills and random states, SOAK_ROUNDS (20) times over
	@ctest --preset release -j 2 -R 'fault|kill|property|concurren' \
	  --repeat until-fail:$(SOAK_ROUNDS)

lint: ## layering, formatting and clang-tidy; changes nothing
	@scripts/setup.sh build lint
	@scripts/lint.sh

format: ## run clang-format over our sources
	@scripts/setup.sh lint
	@git ls-files '*.cc' '*.h' | xargs clang-format-14 -i

install: build ## cmake --install to PREFIX (default /usr/local)
	@cmake --install build $(if $(PREFIX),--prefix $(PREFIX))

clean: ## remove build folders and the demo's run; keeps .venv
	@rm -rf build build-asan build-tsan build-dev build-fuzz build-cuda build-python dist demo-run finetune-run
