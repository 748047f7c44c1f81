# No mocks, no imitation, no bypass: real servers, real data.
# The two commands of the README are `make up` and `make test`; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

STACK ?= dev
# Node 24 comes from the npm package `node`, whatever Node the machine has.
NODE := node_modules/.bin/node
SOMA := $(NODE) cli/main.ts

.PHONY: help setup up down status test check unit platform-test images toolchain render bench bench-cluster format

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

node_modules/.installed: package-lock.json
	npm ci --no-progress
	touch $@

setup: node_modules/.installed ## Install what the platform needs on this machine: npm packages and Debian packages
	$(NODE) cluster/main.ts install-packages

up: setup ## Bring the platform up and answer one session (idempotent, resumable)
	$(SOMA) up --stack $(STACK)

down: node_modules/.installed ## Take everything away: processes, mounts, namespaces, state (caches stay)
	$(SOMA) down

status: node_modules/.installed ## What runs, and why something does not
	$(SOMA) status

toolchain: setup ## Build Kubernetes and the Go servers into the cache
	$(NODE) cluster/main.ts toolchain

images: toolchain ## Build the images whose inputs changed
	$(NODE) images/main.ts build

check: node_modules/.installed ## Lint, format check and type check
	npm run --silent check

unit: toolchain ## Tests that need no cluster
	npm run --silent test:unit

# The platform comes up after the unit tests: idle, it takes two fifths of two cores.
test: images check ## Everything: checks, unit tests, then the platform and the tests on it
	$(NODE) tests/main.ts

platform-test: up ## The tests on the running platform
	npm run --silent test:platform

render: node_modules/.installed ## Write the manifests of staging and production to rendered/
	$(NODE) stacks/main.ts render --stack staging
	$(NODE) stacks/main.ts render --stack production

bench: up ## Run every benchmark that leaves the platform running and print its figures
	$(NODE) tests/bench/main.ts

bench-cluster: toolchain ## Measure the start of the local cluster; takes the running one down
	$(NODE) cluster/main.ts bench

format: node_modules/.installed ## Format the sources
	npm run --silent format
