# Everything here works from a fresh clone, with no environment active: tools/setup makes .venv first,
# and does nothing when .venv is up to date.

.DEFAULT_GOAL := help
.PHONY: help setup setup-run setup-all run test slow hostile installed bounds container lint docs lock clean \
  ruff format-check mypy pytest

PORT ?= 8080
REQUESTS ?= 100000
# How many processes test at the same time: most tests wait for something, so two cores carry six.
JOBS ?= 6
# A file stays in one process, which keeps the gateways that its tests share; conftest.py says which file is first.
PYTEST := .venv/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
LINT := ruff format-check mypy
OLDEST_PYTHON := 3.12

# $(call each,STEPS) runs every step, also after one has failed, and ends by naming those that did.
each = @failed=; \
  for step in $(1); do \
    echo "== $$step"; \
    $(MAKE) --no-print-directory "$$step" || failed="$$failed $$step"; \
  done; \
  if [ -n "$$failed" ]; then echo "make $@: FAILED:$$failed"; exit 1; fi

help:
	@echo 'make run     start the demo: a proxy, an upstream, and a presigned URL to try (PORT=8080)'
	@echo 'make test    lint, then the tests (JOBS=4; one step alone: make ruff, format-check, mypy, pytest)'
	@echo 'make slow    the tests that take longest, which make test leaves out'
	@echo 'make lint    ruff and mypy'
	@echo 'make docs    build the site from docs/, into build/site'
	@echo 'make setup-all  install the programs that some tests run (curl, redis-server, …), with apt-get'
	@echo 'make hostile a hundred thousand mutated requests, handshakes, requests to AWS, answers with tokens (REQUESTS=…)'
	@echo 'make installed  from the built wheel to the first request, by pip, uv, pipx and make (needs a package index)'
	@echo 'make bounds  a short test run against the oldest and the newest versions that are admitted (needs an index)'
	@echo 'make container  build and run the image without a daemon (needs root and a Debian mirror)'
	@echo 'make lock    write uv.lock and requirements/ again, from pyproject.toml'
	@echo 'make clean   remove .venv and everything else that was generated'

setup:
	@tools/setup test

setup-run:
	@tools/setup run

setup-all:
	@tools/setup --all

run: setup-run
	@PYTHONPATH=addon .venv/bin/python -m presign_proxy demo --port $(PORT)

test: setup
	$(call each,$(LINT) pytest)

slow: setup
	@NO_FORK=1 $(PYTEST) -m 'slow and not container'

hostile: setup
	@.venv/bin/python bench/hostile.py --requests $(REQUESTS)

installed: setup
	@.venv/bin/python -m pytest tests/install

bounds: setup
	@.venv/bin/python tools/bounds oldest
	@.venv/bin/python tools/bounds newest

container: setup
	@.venv/bin/python -m pytest -m container tests/repository/test_container_runs.py

lint: setup
	$(call each,$(LINT))

# The warning is about a version of mkdocs that the lock does not take.
docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo 'The site is in build/site. To read it at http://127.0.0.1:8000: .venv/bin/mkdocs serve'

ruff: setup
	@.venv/bin/ruff check

format-check: setup
	@.venv/bin/ruff format --check

mypy: setup
	@.venv/bin/mypy

pytest: setup
	@$(PYTEST) -m 'not slow and not container'

# The index is named, so that a mirror set up on one machine does not end up in everybody's lock.
# To move to newer versions: make lock UPGRADE=--upgrade
lock:
	@uv --version >/dev/null || { echo 'make lock needs uv: https://docs.astral.sh/uv/'; exit 1; }
	uv lock --default-index https://pypi.org/simple $(UPGRADE)
	uv export --quiet --frozen --no-emit-project --no-dev --output-file requirements/run.txt
	uv export --quiet --frozen --no-emit-project --no-dev --extra redis --extra uvloop --extra aws --output-file requirements/serve.txt
	uv export --quiet --frozen --no-emit-project --only-group build --output-file requirements/build.txt
	uv export --quiet --frozen --no-emit-project --output-file requirements/test.txt
	uv pip compile --quiet --resolution lowest-direct --python-version $(OLDEST_PYTHON) --universal --generate-hashes \
	  --default-index https://pypi.org/simple pyproject.toml --extra redis --extra uvloop --extra aws --output-file requirements/oldest.txt

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist tests/support/node/node_modules
	find addon tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
