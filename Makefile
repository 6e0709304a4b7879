# Two commands: `make demo` and `make test`. Both set up what they need in .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=

.PHONY: campaign demo test test-fast test-rare test-clients docs tree setup check format clean

demo: setup
	@$(BIN)/understudy demo $(ARGS)

test: setup check
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not rare" $(ARGS)

# What takes minutes and few changes reach: before a release, and after a change of those parts.
test-rare: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m rare $(ARGS)

# The inner loop: no test that takes seconds, and fewer examples of each property.
test-fast: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not rare" --hypothesis-profile=fast $(ARGS)

# The clients that people use, against the running proxy; npm brings the one for Node.
test-clients: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[clients]'
	npm install --silent --no-save --no-package-lock --prefix $(VENV)/npm openai
	UNDERSTUDY_NODE_MODULES=$(abspath $(VENV)/npm/node_modules) $(BIN)/python -m pytest tests/clients $(ARGS)

# A thousand random faults against the running product: kills, full disks, clocks, hostile peers.
campaign: setup
	$(BIN)/python -m tests.campaign $(ARGS)

# The manual as a site in build/docs, which needs no network to be read.
docs: setup tree
	$(BIN)/mkdocs build --quiet

# The tree in ARCHITECTURE.md, from the docstrings.
tree: setup
	$(BIN)/python docs/tree.py

setup: $(READY)

# The stamp is written last, so that a setup which was interrupted starts over.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "understudy needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# Formatting, lint, types, unused code: the same in CI and on a desk.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.helpers.dead_code

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info
