# Two targets do everything on a machine with Python 3.11 or newer, pip and make:
#   make demo   install into .venv and draw the box of a phrase on an example photograph
#   make test   install what the tests need, then check style, types and behaviour
# torch comes first and pinned: an unpinned one may replace a CPU build by gigabytes of CUDA. To choose its source, set
# pip's own variables, e.g. PIP_EXTRA_INDEX_URL.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
IMAGE := src/wherein/examples/coffee.jpg
PHRASE := the cup

.PHONY: demo test

demo: .venv/.installed
	$(BIN)/wherein locate $(IMAGE) "$(PHRASE)" --save demo.png
	@echo "The picture with the box of \"$(PHRASE)\": $(CURDIR)/demo.png"

test: .venv/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable .
	touch $@

.venv/.installed-for-tests: .venv/.installed
	$(PIP) --editable ".[dev,train,eval,synth,scale]"
	touch $@
