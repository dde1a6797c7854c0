# Everything a newcomer needs: `make demo` and `make test` also create the virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PROMPT ?= What is the capital of France?

.PHONY: demo test check bench soak size clean

demo: $(VENV)/.installed
	$(BIN)/lpu fetch smollm2
	$(BIN)/lpu run smollm2 --prompt "$(PROMPT)"

test: check
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python scripts/size.py --quiet

bench: $(VENV)/.installed
	$(BIN)/python scripts/bench.py functional

soak: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[soak]'
	$(BIN)/python -m pytest --hypothesis-profile=soak --timeout 1800 tests/test_fuzz.py
	$(BIN)/python -m pytest --hypothesis-profile=soak --timeout 1800 -m soak
	$(BIN)/python scripts/bench.py chaos
	$(BIN)/python scripts/abuse_server.py

size:
	@$(PYTHON) scripts/size.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing into $(VENV), this takes a minute or two'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing into $(VENV), this takes a minute or two'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.installed
