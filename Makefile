# Plain `make` prints the targets and does nothing. The environments live in .venv, the stack's state in .orchard.
.DEFAULT_GOAL := help
.PHONY: help setup run stop status upload clean package test test-containers soak docs lint audit bench

BOOTSTRAP_PYTHON := $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,$(shell command -v $(name) 2>/dev/null)))
AIRFLOW_BIN := .venv/airflow/bin
# Lived by two processes, a half each; other seeds than from 0 on: FIRST_SEED=number.
HISTORIES ?= 20000
FIRST_SEED ?= 0
NEEDS_PYTHON = $(if $(BOOTSTRAP_PYTHON),,$(error orchard: found no python on PATH, but Orchard needs Python 3.11, 3.12 or 3.13: install one))
# `stop`, `status` and `clean` must work without the environments, too.
SANDBOX = PYTHONPATH=sandbox $(if $(wildcard $(AIRFLOW_BIN)/python),$(AIRFLOW_BIN)/python,$(BOOTSTRAP_PYTHON)) -m orchard_sandbox

help: ## print this list
	@echo "Orchard: image batches in S3 to tables of CNN features and PCA features."
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{ printf "%-23s %s\n", $$1, $$2 }'

setup: ## build the environments (.venv) from the pinned files
	$(NEEDS_PYTHON)
	@$(BOOTSTRAP_PYTHON) sandbox/bootstrap.py

run: setup ## set up, start the stack, upload and run: IMAGES=folder BATCHES="a b" BATCH=date WAREHOUSE=uri
	@PYTHONPATH=sandbox $(AIRFLOW_BIN)/python -m orchard_sandbox run

upload: $(if $(TO),,setup) ## upload what differs to the running stack, or to the server TO=http://...: IMAGES=folder BATCHES="a b" BATCH=date
	$(NEEDS_PYTHON)
	$(if $(TO),@$(BOOTSTRAP_PYTHON) sandbox/bootstrap.py airflow)
	@PYTHONPATH=sandbox $(AIRFLOW_BIN)/python -m orchard_sandbox upload

status: ## say which processes run, and where the S3 stand-in and the UI are
	$(NEEDS_PYTHON)
	@$(SANDBOX) status

stop: ## end every process of the stack; uploads and tables stay
	$(NEEDS_PYTHON)
	@$(SANDBOX) stop

clean: ## stop, and remove .orchard with its tables; the environments stay
	$(NEEDS_PYTHON)
	@$(SANDBOX) clean

package: PACKAGE ?= .orchard/package
package: setup ## build what a cluster needs to run the jobs, into .orchard/package or PACKAGE=folder
	@$(AIRFLOW_BIN)/python -m orchard.deployment.package "$(PACKAGE)"
	@.venv/jobs/bin/orchard-jobs prepare --warehouse "$(PACKAGE)" && find "$(PACKAGE)" -name '*.onnx'

# Eight suites, three at a time, the longest first; each tells all it has to say when it is over.
SUITES := suite-stack suite-clusters suite-sandbox suite-orchard suite-spark35 suite-launchers suite-jobs suite-connect
.PHONY: $(SUITES)
suite-stack: SUITE = $(AIRFLOW_BIN)/python -m pytest tests/end_to_end/test_make_run.py
suite-clusters: SUITE = $(AIRFLOW_BIN)/python -m pytest tests/end_to_end/test_cluster_runs.py
suite-sandbox: SUITE = $(AIRFLOW_BIN)/python -m pytest tests/sandbox
suite-orchard: SUITE = $(AIRFLOW_BIN)/python -m pytest tests/unit/orchard tests/dags tests/architecture
suite-jobs: SUITE = .venv/jobs/bin/python -m pytest tests/unit/jobs tests/spark
suite-connect: SUITE = SPARK_REMOTE='local[2,4]' .venv/jobs/bin/python -m pytest tests/spark
suite-spark35: SUITE = $(BOOTSTRAP_PYTHON) sandbox/bootstrap.py jobs35 && .venv/jobs35/bin/python -m pytest tests/spark
suite-launchers: SUITE = $(AIRFLOW_BIN)/python -m pytest tests/launchers

test: setup ## run all tests: unit tests, the jobs on each Spark, the DAGs, and two stacks from end to end
	@$(MAKE) --no-print-directory -k -j3 $(SUITES)

$(SUITES):
	@log=$$(mktemp); begin=$$(date +%s); { $(SUITE); } >$$log 2>&1; status=$$?; \
	echo "== $@, $$(($$(date +%s) - begin)) s: $(SUITE)"; cat $$log; rm $$log; exit $$status

soak: setup ## compare thousands of generated histories with one clean run each: HISTORIES=number, FIRST_SEED=number
	@half=$$(($(HISTORIES) / 2)); histories="$(AIRFLOW_BIN)/python -m pytest -s --timeout 36000 tests/unit/orchard/batch/test_histories.py"; \
	SOAK_HISTORIES=$$half SOAK_FIRST_SEED=$(FIRST_SEED) $$histories -k "bucket_alone or real_delta" & first=$$!; \
	SOAK_HISTORIES=$$half SOAK_FIRST_SEED=$$(($(FIRST_SEED) + half)) $$histories -k bucket_alone & second=$$!; \
	wait $$first; first=$$?; wait $$second && test $$first = 0 && \
	SOAK_PLANTED=1 $$histories -k "rule or search" && \
	SOAK_FAULT_SCHEDULES=97 $(AIRFLOW_BIN)/python -m pytest --timeout 3600 tests/launchers/test_fault_schedules.py && \
	SOAK_STEPS=1 $(AIRFLOW_BIN)/python -m pytest tests/dags/test_runs.py tests/unit/orchard/batch/test_histories.py -k missing_step && \
	SOAK_FAULT_SCHEDULES=3 SOAK_ON_SPARK=1 $(AIRFLOW_BIN)/python -m pytest --timeout 3600 tests/launchers/test_fault_schedules.py && \
	SOAK_REAL_HISTORIES=5 SOAK_REAL_STEPS=20 $(AIRFLOW_BIN)/python -m pytest --timeout 3600 tests/end_to_end -k generated -s

test-containers: setup ## test the images and the compose file, with the Docker engine that answers or one of its own
	@tests/containers/engine.sh run $(AIRFLOW_BIN)/python -m pytest -s --timeout 6000 --durations 10 tests/containers || \
	{ test $$? = 77 && echo "test-containers: skipped: no Docker engine is available"; }

BENCH_IMAGES ?= 4000
BENCH_ROUNDS ?= 3
bench: setup ## measure speed beside the backbone alone, a script by hand and Daft: BENCH_IMAGES=number, BENCH_ROUNDS=number
	$(NEEDS_PYTHON)
	@$(BOOTSTRAP_PYTHON) sandbox/bootstrap.py daft
	@.venv/jobs/bin/python bench/batch_sizes.py $(BENCH_ROUNDS)
	@.venv/jobs/bin/python bench/featurize_rates.py $(BENCH_IMAGES) $(BENCH_ROUNDS)
	@.venv/jobs/bin/python bench/photos.py

PINS := $(wildcard requirements/*.txt)
audit: ## check the pinned packages for known vulnerabilities on PyPI
	$(NEEDS_PYTHON)
	@$(BOOTSTRAP_PYTHON) sandbox/bootstrap.py audit
	@.venv/audit/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes $(PINS:%=-r %)

docs: setup ## write the tables of docs/reference/ from the code
	@$(AIRFLOW_BIN)/python docs/generate.py

lint: setup ## check formatting, lint, types, import rules and the reference pages
	@$(AIRFLOW_BIN)/ruff check .
	@$(AIRFLOW_BIN)/ruff format --check .
	@$(AIRFLOW_BIN)/mypy plugins spark_jobs sandbox bench docs dags tests
	@PYTHONPATH=sandbox:tests $(AIRFLOW_BIN)/lint-imports
	@$(AIRFLOW_BIN)/python docs/generate.py --check
	@$(AIRFLOW_BIN)/hadolint Dockerfile spark_jobs/Dockerfile
	@$(AIRFLOW_BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml
