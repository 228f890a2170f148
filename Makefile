# `make` lists the targets. TORCH=cpu or TORCH=cu130 chooses a build of torch, see README.md.
# For a POSIX shell: Linux, macOS, and Windows with WSL (native Windows puts programs elsewhere than in bin).
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
ENV := $(VENV)/.installed
SITE := _build/html

# A page shows 64 columns of code whole, a phone nearly so.
IN_NOTEBOOKS := --line-length 64 --exclude "*.py" book

# One thread each: several chapters, tests or timings run side by side.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: site  ## build the book and serve it on localhost
	$(PY) book/_ext/serve.py --port $(PORT) $(SITE)

test: $(ENV) browser lint unit notebooks site browse  ## everything that continuous integration runs

lab: $(ENV)  ## open a reader's copy of the chapters in JupyterLab
	$(PY) book/_ext/lab.py notebooks
	$(BIN)/jupyter-lab --notebook-dir=notebooks

edit: $(ENV)  ## open the chapters' sources in JupyterLab
	$(BIN)/jupyter-lab --notebook-dir=book

bench: $(ENV)  ## time bncore beside its peers
	@for file in benchmarks/*.py; do $(PY) $$file || exit 1; done

record: $(ENV)  ## run chapters and keep their text outputs; CHAPTER=mechanics/forward for one
	$(PY) book/_ext/record.py $(CHAPTER)

check: $(ENV)  ## check one chapter, in a minute or so; CHAPTER=mechanics/forward
	$(PY) book/_ext/check.py $(CHAPTER)

chapter: $(ENV)  ## lay out a new chapter; NAME=practice/small_batches, TITLE="Small batches" if need be
	$(PY) book/_ext/layout.py $(NAME) $(if $(TITLE),"$(TITLE)")

full: $(ENV)  ## repeat the long runs that a chapter shows from a file; CHAPTER=explanations/depth; ARGS=--paper
	$(PY) -m bncore.chapters.full $(CHAPTER) $(ARGS)

site: $(ENV)  ## build the site without serving it
	$(BIN)/jupyter-book build . -W --keep-going

lint: $(ENV)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --exclude "*.ipynb" .
	$(BIN)/ruff format --check $(IN_NOTEBOOKS)
	$(BIN)/ruff check --select E501 $(IN_NOTEBOOKS)

format: $(ENV)  ## bring code into style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format --exclude "*.ipynb" .
	$(BIN)/ruff format $(IN_NOTEBOOKS)

unit: $(ENV)  ## test bncore
	$(BIN)/pytest tests -n 2 --dist worksteal --ignore tests/site

coverage: $(ENV)  ## test bncore and say which lines no test reaches; takes half as long again
	$(BIN)/pytest tests -n 2 --ignore tests/site --cov --cov-report=term

# The rows of the ledger are compared with the registry by tests/test_names.py.
notebooks: $(ENV)  ## compare every printed number of every chapter with a fresh run
	BNCORE_FACE=text TQDM_DISABLE=1 $(BIN)/pytest --nbval --nbval-current-env -n 2 --dist loadfile -p no:cacheprovider --ignore=book/claims.ipynb book

browse: site browser  ## drive the built site in Chromium
	$(BIN)/pytest tests/site -n 2 --dist loadgroup -m "not timing"
	$(BIN)/pytest tests/site -m timing

browser: $(ENV)
	@$(PY) tests/site/browser.py

clean:  ## remove what was built, environment included
	rm -rf _build $(VENV) text .pytest_cache .ruff_cache .hypothesis .coverage

$(ENV): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifdef TORCH
	$(PY) -m pip install --quiet uv
	$(BIN)/uv pip install --python $(PY) --torch-backend=$(TORCH) -r requirements.txt
else
	$(PY) -m pip install --quiet -r requirements.txt
endif
	$(PY) -m pip install --quiet --editable .
	@touch $@

.PHONY: help book test lab edit bench record check chapter full site lint format unit coverage notebooks browse browser clean
