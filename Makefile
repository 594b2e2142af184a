# `make demo` and `make test` need nothing but Python 3.11 or later, git and make: they make their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES := $(shell nproc)
# Three a core, twelve at most: most tests mostly sleep. Single tests: $(BIN)/python -m pytest tests/node/test_loop.py
WORKERS ?= $(shell expr 3 '*' $(CORES) \& $(CORES) '<' 5 \| 12)
# One test at a time goes to a worker: tests/conftest.py has them in the order that takes least time.
PYTEST = $(BIN)/python -m pytest --maxschedchunk=1

.PHONY: help demo check test test-all resilience resilience-soak resilience-others lint types
.PHONY: bench fleet docs lock clean
.PHONY: manifests picture

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^[^:]*Makefile://; s/:.*## /\t/' | expand -t 18

$(VENV)/made: requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(VENV)/made ## run the main job for real on a scratch host, with a commentary
	$(BIN)/python demo/demo.py

check: $(VENV)/made ## lint, types and the tests without processes and containers, half a minute
	@echo "make check: about half a minute on two cores"
	@$(MAKE) --no-print-directory --jobs=3 lint types quick

.PHONY: quick
quick: $(VENV)/made
	$(PYTEST) -n $(shell expr 1 + $(CORES)) -m "not process" tests/test_*.py $(wildcard tests/check tests/cluster tests/cni tests/errands tests/node tests/telling)

test: $(VENV)/made ## run the tests, three minutes
	@echo "make test: about 3 minutes on two cores, some container tests (podman and root) included; make check takes 30 seconds"
	$(PYTEST) -n $(WORKERS) -m "not thorough"

test-all: $(VENV)/made ## run the tests that make test leaves out because they take long
	@echo "make test-all: about 9 minutes on two cores: what make test leaves out, and not that once more"
	$(PYTEST) -n $(WORKERS) -m thorough

resilience: $(VENV)/made ## run the long form of the resilience tests, about an hour
	$(MAKE) --jobs=2 --keep-going --output-sync=target resilience-soak resilience-others

# Side by side, because the soaks mostly sleep; what each of them tried is printed at its end.
resilience-soak: $(VENV)/made
	RESILIENCE=long $(BIN)/python -m pytest tests/resilience/test_soak.py

resilience-others: $(VENV)/made
	RESILIENCE=long $(BIN)/python -m pytest tests/resilience --ignore=tests/resilience/test_soak.py

lint: $(VENV)/made ## check style and format, and the workflows with zizmor
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/zizmor --quiet --offline --no-progress .github

types: $(VENV)/made ## check types
	$(BIN)/mypy

bench: $(VENV)/made ## measure what it costs, as ratios to a bare interpreter
	$(BIN)/python -m compileall -q entrypoint
	$(BIN)/python bench/bench.py

fleet: $(VENV)/made ## run 200 of it on this machine, and count what they ask of the API server
	$(BIN)/python -m compileall -q entrypoint
	$(BIN)/python bench/fleet.py

docs: $(VENV)/made ## write the table of flags and the examples into the pages
	$(BIN)/python tools/flags_table.py
	$(BIN)/python -m tests.examples

picture: $(VENV)/made ## draw the beginning of the demo's output for the README
	$(BIN)/python tools/picture.py

manifests: ## copy the manifests to where Kustomize may read them
	cp deployments/multus-daemonset.yml deployments/base/
	cp deployments/multus-uninstall.yml deployments/base/uninstall/
	cp deployments/multus-policy.yml deployments/components/policy/

# The kubernetes client asks for these too, and only its asynchronous half, which nothing imports, has a use for them.
# pip-compile leaves out what it is told to call unsafe. The rest is complete, so that pip need not look further
# (--no-deps); tests/test_requirements.py looks whether it is.
LEFT_OUT = aiohttp aiohttp-retry aiohappyeyeballs aiosignal frozenlist multidict propcache yarl

lock: $(VENV)/made ## resolve the dependencies anew and lock them with hashes
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check pip-tools
	for file in requirements requirements-build requirements-dev; do \
	  $(VENV)/lock/bin/pip-compile --quiet --upgrade --strip-extras --generate-hashes --no-header \
	    $(addprefix --unsafe-package=,$(LEFT_OUT)) --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    --output-file $$file.txt $$file.in || exit 1; \
	done

clean: ## remove what the targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The image. Everything here can be given on the command line, for example ENGINE=docker or BUILD_FLAGS=--platform=...
ENGINE ?= podman
IMAGE ?= ghcr.io/multus-entrypoint/multus-entrypoint:v$(VERSION)
VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' entrypoint/__init__.py)
MULTUS_VERSION ?= v4.3.1
# The digests of the images that it starts from, where images/Dockerfile has them; another MULTUS_VERSION than there has none.
digest = $(shell sed -nE 's|^FROM $(1)@(sha256:[0-9a-f]{64}) .*|\1|p' images/Dockerfile)
DEBIAN := docker.io/library/debian:trixie-slim
MULTUS = ghcr.io/k8snetworkplumbingwg/multus-cni:$(MULTUS_VERSION)
DEBIAN_DIGEST ?= $(call digest,$(DEBIAN))
MULTUS_DIGEST ?= $(call digest,$(MULTUS))
# Where `make licenses` puts what belongs beside the multus binary.
LICENSES := build/licenses-$(MULTUS_VERSION)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# Dates every file of the image: two builds of one commit are the same, as far as Debian's archive has not moved on.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
DATE_FLAGS = $(if $(findstring podman,$(ENGINE)),--pull=missing --timestamp=$(SOURCE_DATE_EPOCH),--build-arg=SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH))
# What this machine needs to reach a package index, where it needs something: it becomes no part of the image.
SECRETS = $(if $(wildcard $(SSL_CERT_FILE)),--secret=id=ca-certificates$(COMMA)src=$(SSL_CERT_FILE)) \
  $(if $(wildcard $(PIP_CONFIG_FILE)),--secret=id=pip-config$(COMMA)src=$(PIP_CONFIG_FILE))
COMMA := ,

.PHONY: image test-container digests licenses
image: ## build the container image
	$(ENGINE) build --network=host $(DATE_FLAGS) $(SECRETS) --build-arg=MULTUS_VERSION=$(MULTUS_VERSION) \
	  --build-arg=MULTUS_DIGEST=$(MULTUS_DIGEST) --build-arg=DEBIAN_DIGEST=$(DEBIAN_DIGEST) \
	  $(if $(wildcard $(LICENSES)),--build-context=licenses=$(LICENSES)) \
	  --build-arg=VERSION=$(VERSION) --build-arg=REVISION=$(REVISION) $(BUILD_FLAGS) --tag=$(IMAGE) .

digests: ## pin the images that the image starts from, as they are today (needs docker, and access to their registries)
	tools/pin.sh images/Dockerfile $(DEBIAN) $(MULTUS)

licenses: ## collect the licenses of Multus's Go modules for the image (needs git and go, and access to both)
	tools/multus_licenses.sh $(MULTUS_VERSION) $(LICENSES)

test-container: $(VENV)/made ## run the tests of the image (needs podman and root)
	$(PYTEST) -n $(WORKERS) -m container
