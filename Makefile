# make demo: draw data, train, validate, predict.   make test: ruff, mypy, pytest.   make test-all: its slow ones too.
# make test-lowest: the tests with the oldest releases that setup.cfg allows (another 5 GB).
PYTHON ?= python3
BIN := .venv/bin
LOWEST ?= .venv-lowest
# Where containers set it, each Python that a test or the demo starts would compile the libraries anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-lowest
demo: $(BIN)/.installed
	$(BIN)/python -m scripts.demo

test: SELECTED = -m "not slow"
test test-all: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(SELECTED)

# Old releases call newer ones by deprecated names, which is no fault of ours: those warnings are no errors here.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" -W default::DeprecationWarning

# Lowest for what setup.cfg names; what those need in turn is the newest that they allow.
$(LOWEST)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@

# The constraints are what the tests ran with; uv installs them in a tenth of pip's time.
$(BIN)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@
