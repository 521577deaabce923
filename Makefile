# Two commands: `make quench` makes and judges a silica glass, `make test` runs the whole suite and the linter.
#
# PYTHON (default python3) makes the environment in .venv; VENV, RUN and QUENCH change where and what.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/silica
QUENCH ?=

BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard csrc/*.hpp csrc/cpu/*.cpp)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: quench test bench doctor clean
.DELETE_ON_ERROR:

quench: $(VENV)/.installed
	@$(BIN)/silica-md quench --out $(RUN) --if-finished show $(QUENCH)

test: $(VENV)/.installed-test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/python -m pytest -n 2 --dist worksteal

doctor: $(VENV)/.installed
	@$(BIN)/silica-md doctor

$(VENV)/.ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "error: Python 3.10 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing); install one (apt install python3 python3-venv) or name it: make PYTHON=python3.12"; exit 1; }
	@for name in $${CXX:-} g++ c++ clang++; do command -v $$name >/dev/null 2>&1 && exit 0; done; \
	  echo "error: no C++ compiler found; install one (apt install g++) or name it in CXX"; exit 1
	@test "$$(df -Pk . | awk 'NR==2 {print $$4}')" -ge 3000000 || \
	  { echo "error: less than 3 GB free on the disk of $$(pwd); the environment needs them; free some space"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make virtual environments; install venv (apt install python3-venv)"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.ready $(SOURCES)
	@echo "setting up $(VENV) (once; a few minutes, mostly downloads)"
	@$(PIP) install -c constraints.txt -e . || { echo "error: installing failed; the lines above say why (no network, or a full disk?)"; exit 1; }
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(PIP) install -c constraints.txt -e '.[test]' || { echo "error: installing the test packages failed; the lines above say why"; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info rsa_kernels/librsa_kernels.so
