# streamer: two commands do everything, set-up included.
#
#   make demo   telemetry from MQTT through Kafka into ClickHouse, on real services, and what became of it
#   make test   everything CI runs
#
# make up / make down keep the services running to play with; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Built files stay outside the checkout, so that a fresh clone on the same machine is quick.
CACHE := $(or $(STREAMER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/streamer)
export CARGO_TARGET_DIR ?= $(CACHE)/target
STREAMER := $(CARGO_TARGET_DIR)/debug/streamer
STACK := python3 services/stack.py
# Clippy builds the project's own crate in place of rustc: lints and tests share one build of everything.
CLIPPY := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__

.PHONY: help demo test faults up down setup build lint bench bench-mapping docs

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

demo: build ## run both pipelines on real services for 15 s and show what happened
	@python3 services/demo.py --streamer $(STREAMER)

test: setup ## everything CI runs: format, lints, unit tests, tests and faults on real services
	@CLIPPY='$(CLIPPY)' services/test.sh

faults: setup ## the fault battery in full, one scenario after the other: an hour or more; ends with a table
	@CLIPPY='$(CLIPPY)' services/faults.py

up: setup ## start Mosquitto, Kafka and ClickHouse on their usual ports and keep them running
	@$(STACK) up
	@echo 'now: eval "$$(python3 services/stack.py env)"; cargo run -- run pipelines/*.yaml'

down: ## stop what `make up` started and delete its data
	@$(STACK) down

setup: # packages and downloads; nothing is done twice
	@$(STACK) setup

build: setup
	@cargo build

lint: build ## check the shipped pipelines
	@$(STREAMER) lint pipelines

bench: setup ## CPU seconds per million messages of each shipped pipeline
	@cargo build --release
	@python3 benches/cpu.py --streamer $(CARGO_TARGET_DIR)/release/streamer

bench-mapping: ## CPU nanoseconds and allocations of a mapping: compiled, interpreted, by hand
	@cargo bench --bench mapping

docs: build ## write the generated pages again: docs/reference, docs/SUMMARY.md, schemas/pipeline.schema.json
	@UPDATE=1 cargo test --test reference --test schema --test docs
