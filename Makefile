# Everything that is done with this project. `make` alone lists the verbs.
#
# PYTHON=python3.12   the interpreter the environment is made with
# ARGS="..."          passed on: make run ARGS="--port 8060", make test ARGS="-k journal"; -n0 for one process

VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-proto
BENCHMARKS := step_time first_curve samples surgery_latency surgery_coverage
PIP_INSTALL := -m pip install --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-slow browser lint proto bench screenshots clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## install, start backend and dashboard on the default experiment, stop both on Ctrl-C
	@$(BIN)/graybox demo $(ARGS)

test: $(VENV)/.installed-dev browser ## every test that is quick, a real browser among them
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed-dev browser ## the tests that take long, and new examples for those of properties
	$(BIN)/python -m pytest -m "slow or hypothesis" --hypothesis-profile=explore $(ARGS)

browser: $(VENV)/.installed-dev
	@$(BIN)/python scripts/browser.py --install

lint: $(VENV)/.installed-dev ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The versions are old on purpose: their stubs import on protobuf 4.25, 5, 6 and 7.
proto: $(PROTO_VENV)/.installed ## make the gRPC stubs from experiment_service.proto
	PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" $(PROTO_VENV)/bin/python -m grpc_tools.protoc -Igraybox/proto=. \
		--python_out=. --grpc_python_out=. --mypy_out=. graybox/proto/experiment_service.proto

bench: $(VENV)/.installed-dev ## measure against plain PyTorch, and surgery against torch-pruning
	@set -e; for benchmark in $(BENCHMARKS); do $(BIN)/python -m "benchmarks.$$benchmark" $(ARGS); done

screenshots: $(VENV)/.installed-dev browser ## make screen-shots/ from the running product
	$(BIN)/python -m scripts.screenshots $(ARGS)

clean: ## remove environments and caches; runs are kept
	rm -rf $(VENV) $(PROTO_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environments. A stamp says what was installed last, so that nothing is installed twice.
$(BIN)/python:
	@sh scripts/make_venv.sh $(VENV) $(PYTHON)

$(PROTO_VENV)/bin/python:
	@sh scripts/make_venv.sh $(PROTO_VENV) $(PYTHON)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Graybox into $(VENV); the first time this takes a few minutes."
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Graybox and the tools for its tests into $(VENV); the first time this takes a few minutes."
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(PROTO_VENV)/.installed: | $(PROTO_VENV)/bin/python
	$(PROTO_VENV)/bin/python $(PIP_INSTALL) grpcio-tools==1.62.3 mypy-protobuf==3.6.0 'setuptools<80'
	@touch $@
