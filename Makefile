# The only entry points. They need Python >= 3.11 (with venv and pip) and make, and download everything else themselves.
PYTHON ?= python3
INPUT  ?=
SINK   ?= log
MODES  ?=
SEED   ?= 1
STRICT ?=
MINUTES ?= 60
TARGET ?=

export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
export UV_COMPILE_BYTECODE := 1
UV  := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := .venv/bin
# Where Python may not write bytecode, it would compile these files at each start of a program.
COMPILE := $(RUN)/python -m compileall -q logfwd logreceiver streams bench

.PHONY: demo kafka test check format chaos fuzz bench man clean setup help
.DEFAULT_GOAL := help

help: ## Show this list of targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: .venv/.runtime $(if $(filter kafka,$(SINK)),.venv/.kafka) ## Run streams side by side on this machine (SINK=log|kafka, MODES=all, INPUT=file)
	@$(RUN)/logbench demo --sink $(SINK) --seed $(SEED) $(if $(MODES),--modes $(MODES)) $(if $(INPUT),--input $(INPUT))

kafka: .venv/.kafka ## Run a Kafka on localhost:9092 until Ctrl-C, to try the pipeline against
	@$(RUN)/logbench kafka

test: .venv/.dev ## Run every test, including those against a real Kafka
	@STRICT=$(STRICT) $(RUN)/pytest --numprocesses 2 --dist worksteal

check: .venv/.dev ## Check format, lint, types and, once a day, known vulnerabilities of dependencies
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(UV) export --frozen --quiet --no-hashes --no-emit-project | $(RUN)/python -m tests.audit .venv/.audited

format: .venv/.dev ## Rewrite the code in the project's format
	@$(RUN)/ruff format .
	@$(RUN)/ruff check --fix .

chaos: .venv/.dev ## Kill -9 every part for half an hour, and count missing and duplicated records
	@$(RUN)/logbench chaos --seeds 12 --minutes 1
	@$(RUN)/logbench chaos --seed 13 --seeds 8 --minutes 1 --modes pq-auth,kemtls,kemtls-pdk,hybrid
	@CHAOS=1 STRICT=$(STRICT) $(RUN)/pytest tests/integration/test_resume_matrix.py tests/integration/test_leader_change.py \
	  tests/integration/test_container_logs.py tests/integration/test_logrotate.py tests/integration/test_proxies.py \
	  tests/integration/test_senders_and_kills.py tests/integration/test_broker_troubles.py \
	  tests/integration/test_rolled_cluster.py tests/integration/test_day.py tests/integration/test_http_under_stress.py \
	  tests/integration/test_disk_full.py tests/bench/figures/test_bootstrap.py \
	  tests/chaos/test_*_crash_points.py tests/bench/test_hostile.py tests/bench/test_fire.py

fuzz: .venv/.dev ## Feed random bytes to TARGET (none: to our own TLS 1.3, then to all) for MINUTES, with a seed that is printed
	@$(if $(TARGET),,$(RUN)/python -m tests.streams.security.tls13.fuzz --minutes $(MINUTES))
	@$(RUN)/python -m tests.fuzz --minutes $(MINUTES) --target $(or $(TARGET),all)

bench: .venv/.dev ## Measure throughput, CPU and memory from file to Kafka, compared with this machine's own limit
	@$(RUN)/logbench throughput --sink kafka

man: .venv/.dev ## Write a man page for each command into build/man/man1
	@$(RUN)/python -m bench.dashboard.manpages build/man/man1

clean: ## Remove everything that these targets created
	rm -rf .venv .uv build demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis

setup: .venv/.dev ## Install everything that tests need

.venv/.runtime: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen --inexact --quiet --python $(PYTHON)
	@$(COMPILE)
	@touch $@

.venv/.kafka: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen --inexact --quiet --python $(PYTHON) --group kafka
	@touch $@

.venv/.dev: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen --inexact --quiet --python $(PYTHON) --group dev
	@$(COMPILE)
	@touch $@ .venv/.runtime .venv/.kafka

.uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; install a newer one, or: make PYTHON=/path/to/python3.12 ..." >&2; exit 69; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv or pip; on Debian and Ubuntu: apt install python3-venv python3-pip" >&2; exit 69; }
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv
