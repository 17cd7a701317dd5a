# The commands of this repository. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := crds models trainer-image serving-image operator demo localcluster
export SSL_CERT_FILE ?= $(wildcard /etc/ssl/certs/ca-certificates.crt)
export OMP_NUM_THREADS ?= 1

# Beyond Helm and Debian's programs: the API server that tests and benchmarks start for themselves.
CONTROL_PLANE := kubernetes etcd training-operator

# A module's tests stay together, so that what they share is made once; those of a cluster too (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -q --dist loadscope --no-loadscope-reorder

# What computes: no result may rest on how a CPU rounds (make test-kernels).
NUMERIC := tests/videogen_models tests/videogen_trainer tests/videogen_serving tests/benchmarks

.PHONY: help tools lua control-plane setup generate check sbom audit unit test test-kernels soak fuzz stories demo cluster install down
.PHONY: year bench-rollback bench-operator bench-attack bench-metrics bench-trainer bench-goodput reproduce

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## the Python environment, from hashed locks

$(VENV)/.installed: requirements/all.lock requirements/installer.lock $(PACKAGES:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0])'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { apt-get update -q && apt-get install -q -y python3-venv; } || \
		{ echo "Python's venv module is missing; install the package python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/installer.lock
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/all.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(PACKAGES:%=--editable %)
	@touch $@

generate: setup ## CRDs and their copies in the chart, from the API's types
	$(BIN)/python -m videogen_api.crd crds charts/videogen/files/crds

tools: # promtool, Helm and what else checks and tests call: built or installed once, looked at in 0.2 s
	@localcluster/localcluster tools

lua: # the same, and Argo CD with its Lua machine
	@localcluster/localcluster tools argo-cd

control-plane: # the same as tools, and API server and etcd
	@localcluster/localcluster tools $(CONTROL_PLANE)

check: setup tools ## lint with Bandit's rules, strict types, import contracts, generated files, chart, Pod Security, fences
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m videogen_api.crd --check crds charts/videogen/files/crds
	$(BIN)/python -m pytest -q tests/fences tests/charts

sbom: setup ## bills of materials (CycloneDX) of the images, in build/sbom
	@$(BIN)/python -m images.sbom build/sbom

audit: sbom ## known vulnerabilities of what is in the images, from OSV; says "unknown" where it cannot be asked
	@$(BIN)/python -m images.audit build/sbom/*.cdx.json

unit: setup lua ## tests that need no cluster, on two cores
	$(PYTEST) --numprocesses 2 tests --ignore=tests/cluster --ignore=tests/e2e

test: setup control-plane lua ## every test: end to end, real API server, simulation and unit, side by side; cluster and images are made meanwhile
	$(PYTEST) --numprocesses 3 tests

test-kernels: setup tools ## the tests that compute, with PyTorch's CPU kernels of each kind: without SIMD, AVX2, the CPU's best
	ATEN_CPU_CAPABILITY=default $(PYTEST) --numprocesses 2 $(NUMERIC)
	ATEN_CPU_CAPABILITY=avx2 $(PYTEST) --numprocesses 2 $(NUMERIC)
	env --unset=ATEN_CPU_CAPABILITY $(PYTEST) --numprocesses 2 $(NUMERIC)

soak: setup control-plane fuzz ## the long campaigns: every write of the operator, every way it can be lost; any edit in any state; 100 simulated years of cycles; and fuzz
	$(BIN)/python -m pytest --numprocesses 2 tests/simulation/soak/year_campaign.py
	$(BIN)/python -m pytest tests/cluster/soak/crash_campaign.py
	$(BIN)/python -m pytest -s tests/cluster/soak/edit_campaign.py

fuzz: setup build/fuzz/.installed ## hostile bytes for everything that reads them, FUZZ_SECONDS (600) for each target
	@for target in tests/fuzz/fuzz_*.py; do \
		echo "$$target"; PYTHONPATH=build/fuzz/site:tests/support $(BIN)/python $$target || exit 1; \
	done

build/fuzz/.installed: requirements/fuzz.lock $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target build/fuzz/site --require-hashes --requirement requirements/fuzz.lock
	@touch $@

stories: setup install lua ## the long end-to-end stories: every task, every example in small, Argo CD, queues, strangers' pods against every NetworkPolicy
	$(BIN)/python -m pytest -q tests/e2e/stories_of_*.py

demo: setup ## the main job: train, judge, release, A/B-test, roll back, on a real cluster
	$(BIN)/python -m videogen_demo

cluster: setup ## a real Kubernetes cluster on this machine (see localcluster/README.md)
	localcluster/localcluster up

install: setup ## cluster, images and chart, without the story
	$(BIN)/python -m videogen_demo --install-only

down: ## stop the local cluster and everything in it
	localcluster/localcluster down

year: setup ## a year of examples/schedule in virtual time, with failures: a picture in build/ (SVG, PNG) and a table; SEED=1
	$(BIN)/python -m benchmarks.year --seed $(or $(SEED),1)

bench-rollback: install ## 20 rollbacks under load: webhook and alert path to the last bad answer
	$(BIN)/python -m benchmarks.rollback

bench-operator: setup control-plane ## 1, 100 and 1,000 TrainingRuns, 500 FineTuneCycles: latency, CPU, requests, memory, restart; and a full cluster
	$(BIN)/python -m benchmarks.operator
	$(BIN)/python -m benchmarks.load

bench-attack: setup control-plane ## rollbacks while thousands of half requests press on the operator; takeover when it is killed
	$(BIN)/python -m benchmarks.attack

bench-metrics: setup ## FVD against closed forms and cd-fvd's formula: accuracy, throughput, bias at small N
	$(BIN)/python -m benchmarks.metrics

bench-trainer: setup ## the trainer against plain PyTorch and accelerate loops: clips a second, memory; pauses for checkpoints
	$(BIN)/python -m benchmarks.trainer

bench-goodput: setup ## a training whose processes are killed at random: productive share of the time, lost steps
	$(BIN)/python -m benchmarks.goodput

reproduce: setup ## trains each family on the synthetic clips (1 to 2 hours): untrained, trained, real; λ = 0.7 against λ = 0
	$(BIN)/python -m benchmarks.reproduce
