# Everything from nothing but Python (3.10 or newer) and make: each target installs and fetches what it needs.

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
ORACLES ?= .oracle-adapters
DOCS ?= docs
Q ?= Which file formats are read?

# cpu, or cuda for an NVIDIA GPU (a download of several GB).
TORCH ?= cpu
# Where the CPU build comes from when pip does not know one by itself (PyPI has only CUDA builds for Linux).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_PIN := $(shell sed -n 's/^torch==//p' constraints.txt)

INSTALL := -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt

# Real data sets may lie beside the repository; a folder named by the caller goes first.
ifndef CYPHER_DATA
CYPHER_DATA := $(shell cd ../shared/data 2>/dev/null && pwd)
endif
ifneq ($(CYPHER_DATA),)
test bench: export CYPHER_DATA := $(CYPHER_DATA)
endif

test: export CYPHER_ORACLES := $(abspath $(ORACLES))

# A question has quotes, dollars and apostrophes: it reaches the shell through the environment, as it was typed.
override DOCS := $(value DOCS)
override Q := $(value Q)
export DOCS Q

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup ask test lint bench peers oracles clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.cypher ## install into .venv (TORCH=cuda for an NVIDIA GPU)

ask: $(VENV)/.cypher ## answer a question from documents: make ask DOCS=path Q="…"
	@$(VENV)/bin/cypher models fetch minilm > /dev/null
	@$(VENV)/bin/cypher qa ask -- "$$Q" "$$DOCS"

test: $(VENV)/.developer ## run all tests but slow ones (ARGS="tests/hub -x" for some, ARGS="-m slow" for those)
	@$(VENV)/bin/python -m pytest -m "not slow" $(ARGS)

lint: $(VENV)/.developer ## check style, types and the direction of imports
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

bench: $(VENV)/.developer peers ## compare with peers, interleaved (takes long)
	@for script in $$(grep -l '^if __name__' benchmarks/*.py); do \
	    echo "== $$script"; $(VENV)/bin/python "$$script" || exit 1; \
	done

peers: $(PEERS)/.peers ## install the peers of make bench into .venv-peers

oracles: $(ORACLES)/.oracles ## install into .oracle-adapters what tests compare adapters with

clean: ## remove the environments, stores and caches made here
	rm -rf $(VENV) $(PEERS) $(ORACLES) .cypher build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# torch goes first and by its exact pin: a range lets pip take a CUDA build. "===" refuses the CPU build.
%/.torch-$(TORCH): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is too old: needs Python 3.10 or newer; name one, as in make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	@set -- --constraint constraints.txt; \
	case "$(TORCH) $$(uname -s)" in \
	    "cpu Linux") \
	        $*/bin/python -m pip index versions torch 2> /dev/null | grep -qF "$(TORCH_PIN)+cpu" || \
	            set -- "$$@" --extra-index-url "$(TORCH_INDEX)"; \
	        set -- "$$@" "torch==$(TORCH_PIN)+cpu" ;; \
	    "cpu "*) set -- "$$@" "torch==$(TORCH_PIN)" ;; \
	    "cuda "*) set -- "$$@" "torch===$(TORCH_PIN)" ;; \
	    *) echo "TORCH=$(TORCH): needs cpu or cuda" >&2; exit 2 ;; \
	esac; \
	echo "pip install $$*"; $*/bin/python -m pip install "$$@"
	@rm -f $*/.torch-*; touch $@

$(VENV)/.cypher: $(VENV)/.torch-$(TORCH) pyproject.toml constraints.txt
	$(VENV)/bin/python $(INSTALL) --editable ".[all]"
	@touch $@

$(VENV)/.developer: $(VENV)/.cypher
	$(VENV)/bin/python $(INSTALL) --editable ".[all,test,lint]"
	@touch $@

$(PEERS)/.peers: $(PEERS)/.torch-$(TORCH) pyproject.toml constraints.txt
	$(PEERS)/bin/python $(INSTALL) --editable ".[all,peers]"
	@touch $@

# Without the constraints: it needs a transformers of its own, older than the one of the tests.
$(ORACLES)/.oracles: $(ORACLES)/.torch-$(TORCH)
	$(ORACLES)/bin/python -m pip install --quiet adapters==1.3.0
	@touch $@

# A file made on the way to another is kept all the same.
.SECONDARY:
