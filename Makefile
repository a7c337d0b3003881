# The front door. `make help` lists what there is.
#
# Everything made goes below build/ (a directory per purpose: c, python, gcc, clang, asan, tsan, fuzz, sim) and .venv/.

FUZZ_SECONDS ?= 60
SIM_SEEDS ?= 1000000
FUZZ ?=
PYTEST_ARGS ?=

PYTHON := .venv/bin/python
python_files = $(shell find bindings/python src include -name '*.[ch]' -o -name '*.py' -o -name '*.pyi' -o -name py.typed) \
	$(shell find . -maxdepth 3 -name meson.build -not -path './build/*') meson_options.txt pyproject.toml tools/glob.py
c_files = $(shell find include src tests bindings examples bench fuzz -name '*.[ch]')
python_places = bindings tests bench examples tools

build_tsan = CC=clang tools/build build/tsan --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false -Dparts=tests

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

.PHONY: all help setup c python test check demo bench fuzz soak soak-sim soak-planted format docs clean
.PHONY: check-format check-python check-rules check-gcc check-clang check-asan check-tsan check-install

## all: the default: set-up, everything in C, the Python package into .venv
all: c python

## help: this text
help:
	@sed -n 's/^## \([a-z-]*\): /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-15s %s\n' "$$name" "$$text"; done

## setup: system packages where some are missing (root or sudo), and .venv with the Python tools
setup:
	@tools/setup

## c: the C library (shared and static), tests, examples and benches, in build/c
c: setup
	@tools/build build/c -Dparts=library,tests,examples,bench

## python: the Python package, into .venv, as `pip install .` would, but kept up to date in build/python
python: setup build/python.stamp

# PATH: meson-python looks there for meson and ninja. Debug information is for profilers; a wheel does without.
build/python.stamp: $(python_files) tools/requirements.txt
	@echo "installing the Python package into .venv"
	@mkdir -p build/python
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON) -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --force-reinstall -Cbuild-dir=build/python -Csetup-args=-Ddebug=true .
	@touch $@

## test: all tests, those in C too; PYTEST_ARGS='-k name' chooses
test: all
	@$(PYTHON) -m pytest $(PYTEST_ARGS)

## check: all the checks below, each its own target: nothing may be found
check: check-format check-python check-rules check-gcc check-clang check-asan check-tsan check-install

## check-format: C and Python are formatted as `make format` does it
check-format: setup
	@echo "== format"
	@clang-format --dry-run -Werror $(c_files)
	@$(PYTHON) -m ruff format --quiet --check --diff $(python_places)

## check-python: ruff's lints, and types by mypy --strict
check-python: setup
	@echo "== ruff, mypy"
	@$(PYTHON) -m ruff check --quiet $(python_places)
	@$(PYTHON) -m mypy --no-error-summary

## check-rules: the floors, banned functions and sizes, documentation against headers
check-rules: setup
	@echo "== floors, sources, docs"
	@status=0; for what in floors sources docs; do $(PYTHON) tools/check_$$what.py || status=1; done; exit $$status

## check-gcc: everything in C compiles without a warning, by gcc
check-gcc: setup
	@echo "== gcc -Werror"
	@CC=gcc tools/build build/gcc --werror -Dparts=library,python,tests,examples,bench

## check-clang: the same by clang
check-clang: setup
	@echo "== clang -Werror"
	@CC=clang tools/build build/clang --werror --buildtype=debug -Dparts=library,python,tests,examples,bench

## check-asan: the C tests with the address and undefined-behaviour sanitizers, assertions on
check-asan: setup
	@echo "== C tests with ASan and UBSan"
	@CC=gcc tools/build build/asan --buildtype=debugoptimized -Db_sanitize=address,undefined \
		-Dc_args='-fno-omit-frame-pointer -fno-sanitize-recover=undefined' -Dparts=tests
	@tools/meson_test build/asan

## check-tsan: the C tests with the thread sanitizer, assertions on
check-tsan: setup
	@echo "== C tests with TSan"
	@$(build_tsan)
	@tools/meson_test build/tsan

## check-install: `pip install .` works in a clean virtual environment
check-install: setup
	@echo "== pip install . in a clean environment"
	@rm -rf build/install && $(PYTHON) -m venv build/install
	@build/install/bin/pip install --quiet --disable-pip-version-check .
	@cd build/install && bin/python -c 'import iokernel, iokernel.sync, iokernel.asyncio'

## demo: 1500 tasks on a private Redis and a private PostgreSQL, which are stopped in the middle
demo: python
	@$(PYTHON) -m iokernel.demo

## bench: all benches, side by side with their peers, which are installed into .venv
bench: all
	@$(PYTHON) bench/run.py

## fuzz: every fuzzer for FUZZ_SECONDS (60) with all sanitizers, or only FUZZ='redis url ring'; corpora stay
fuzz: setup
	@CC=clang tools/build build/fuzz --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false \
		-Dc_args='-fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined' -Dparts=fuzz
	@$(build_tsan)
	@tools/fuzz build/fuzz $(FUZZ_SECONDS) $(FUZZ)

## soak: the tests that take long: IOK_SOAK=1 is set for them; the two below first
soak: all soak-planted soak-sim
	@IOK_SOAK=1 $(PYTHON) -m pytest --timeout=3600 $(PYTEST_ARGS)

## soak-sim: SIM_SEEDS (1000000) seeds of the simulation, with assertions, on all CPUs; docs/simulation.md
soak-sim: setup
	@tools/build build/sim -Db_ndebug=false -Dparts=tests
	@$(PYTHON) tools/soak_sim.py build/sim/tests/test_sim $(SIM_SEEDS)

## soak-planted: plants bugs into copies of the tree, and shows how soon the simulation finds each
soak-planted: setup
	@$(PYTHON) tools/plant.py

## format: formats C and Python in place
format: setup
	@clang-format -i $(c_files)
	@$(PYTHON) -m ruff format --quiet $(python_places)
	@$(PYTHON) -m ruff check --quiet --fix --select I $(python_places)

## docs: writes docs/api-c.md from the comments of include/iokernel.h
docs:
	@tools/gen_api_doc.py

## clean: removes build/; .venv stays
clean:
	rm -rf build
