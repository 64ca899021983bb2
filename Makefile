# Every command of the project; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
DURATION ?= 60
RATE ?= 500

.PHONY: up help run demo test test-containers check format bench chaos chaos-compose setup setup-dev

help: ## One line for each command
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Set up what running needs (the others do it themselves)
	@deploy/local/setup run

setup-dev:
	@deploy/local/setup dev

run: setup ## Run the whole system here: Mosquitto and one Python process; Ctrl-C stops it
	@deploy/local/run

demo: setup ## The same with a simulated fleet and a webhook receiver that prints what arrives
	@deploy/local/demo

up: ## The production profile: docker compose up, waited for, with where to go
	@deploy/compose/up

test: setup-dev ## Every test that needs no containers
	@$(MAKE) -s -C deploy/mosquitto/plugin test
	@$(PYTHON) -m pytest -m "not containers"

test-containers: setup-dev ## Every test that needs Docker: Kafka, MongoDB and the whole Compose file, with faults
	@docker info >/dev/null && docker compose version >/dev/null
	@$(PYTHON) -m pytest -m containers --durations=10

check: setup-dev ## Format, lint, types, import rules, C warnings as errors
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(MAKE) -s -C deploy/mosquitto/plugin

format: setup-dev ## Put the code into its format
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: setup-dev ## Measure: CPU per message, ratios, memory
	@$(PYTHON) -m tests.bench

chaos: setup-dev ## Kill processes under load and count what is missing: make chaos DURATION=60 RATE=500
	@$(PYTHON) -m tests.e2e.chaos --duration $(DURATION) --rate $(RATE)

chaos-compose: RATE := 100
chaos-compose: setup-dev ## The same with containers, Kafka and MongoDB included: make chaos-compose DURATION=300 RATE=100
	@$(PYTHON) -m tests.containers.chaos --duration $(DURATION) --rate $(RATE)
