.DEFAULT_GOAL := help
.PHONY: help run test check bench bench-peers faults planted clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# More words for pytest: make test ARGS="-k lease -x"
ARGS ?=
# Another broker for the example: make run BROKER=rabbitmq
BROKER ?=
# Only what `make test` has, without a page: make faults QUICK=1
QUICK ?=

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/ready-to-run ## do a real job under chicoryd: measure Python's standard library, a task for each file
	$(BIN)/python -m examples.census -c conf/chicory.toml $(if $(BROKER),--broker $(BROKER))

test: $(VENV)/ready-to-test ## run all tests; installs the servers they need when they are missing and that is allowed
	.ci/need-server
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/ready-to-test ## lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: $(VENV)/ready-to-test ## measure speed, beside a bare loop that does the same commands in the same run
	.ci/need-server
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/ready-to-bench ## measure Chicory beside other task queues, each in an environment of its own
	.ci/need-server
	$(BIN)/python -m benchmarks.peers $(ARGS)

faults: $(VENV)/ready-to-test ## kill, freeze and cut things, and count that nothing is lost; QUICK=1 has the short forms
	.ci/need-server
	FAULTS_TABLE=$(if $(QUICK),-,docs/faults.md) $(BIN)/python -m pytest tests/faults tests/simulation tests/contract/test_model.py tests/unit/test_fleet.py tests/rabbitmq/test_crashes.py -m "$(if $(QUICK),not long,long or not long)" -o faulthandler_timeout=900 $(ARGS)

planted: $(VENV)/ready-to-test ## put known bugs into a copy of the source, one by one, and see that a test fails by each
	.ci/need-server
	$(BIN)/python -m tests.planted $(ARGS)

clean: ## remove what was built; never a state directory (.chicory), which may hold tasks
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/ready: .ci/make-venv
	.ci/make-venv $(VENV)
	touch $@

# Each of the two is made again only when pyproject.toml has changed; running needs less than testing.
$(VENV)/ready-to-run: $(VENV)/ready pyproject.toml
	$(PIP) --editable '.[embedded,rabbitmq]'
	touch $@

$(VENV)/ready-to-test: $(VENV)/ready pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/ready-to-run

$(VENV)/ready-to-bench: $(VENV)/ready-to-test
	$(PIP) --editable '.[bench]'
	touch $@
