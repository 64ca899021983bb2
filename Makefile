# Every command of the project; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
DURATION ?= 60
RATE ?= 500

.PHONY: up help run demo test check format bench chaos setup setup-dev

help: ## One line for each command
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
