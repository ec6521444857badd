# make demo: draw data, train, validate, predict.   make test: ruff, mypy, pytest.   make test-all: its slow ones too.
PYTHON ?= python3
BIN := .venv/bin
# Where containers set it, each Python that a test or the demo starts would compile the libraries anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all
demo: $(BIN)/.installed
	$(BIN)/python -m scripts.demo

test: SELECTED = -m "not slow"
test test-all: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(SELECTED)

# The constraints are what the tests ran with; uv installs them in a tenth of pip's time.
$(BIN)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@
