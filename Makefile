# The project's commands. `make help` lists them; CONTRIBUTING.md says which to use when.
#
# Each target first installs, or names, what it needs beside Rust (scripts/tools): `demo` and `test`
# need a C compiler, the rest more. Built tools are cached under ~/.cache/alluxio-dataset.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(shell scripts/tools path):$(PATH)

# Further arguments for the quickstart, e.g. DEMO_ARGS="--keep" or DEMO_ARGS="/path/to/folder".
DEMO_ARGS ?=
# The same for `make bench`, e.g. BENCH_ARGS="--only worker,ring".
BENCH_ARGS ?=
BENCH_PYTHON ?= $(firstword $(subst :, ,$(shell scripts/tools path)))/python-sdk/bin/python
# The same for `make e2e`, e.g. E2E_ARGS="--keep" (see tests/e2e/README.md).
E2E_ARGS ?=

# The same for pytest, e.g. PYTEST_ARGS="-k errors".
PYTEST_ARGS ?=

.PHONY: help demo test test-python test-python-all wheel e2e bench bench-python bench-functions chaos bench-report image lint fmt codegen tools clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, then show the whole path on this machine: S3, workers, load, mount, a worker killed
	@scripts/tools ensure demo
	cargo build --release -p alluxio-cli
	target/release/alluxio-dataset quickstart $(DEMO_ARGS)

test: ## unit and integration tests (neither root nor a cluster needed)
	@scripts/tools ensure build
	cargo test
	@if scripts/tools ensure pytest || [ "$${CI:-}" = true ]; then $(MAKE) --no-print-directory test-python; \
	else echo "left out: the tests of the Python package, for what is missing above"; fi

test-python: ## the Python wheel, by pytest in a fresh virtual environment (Python, Go the first time)
	@scripts/tools ensure pytest
	cargo build -p alluxio-cli
	crates/alluxio-python/run-tests pytest $(PYTEST_ARGS)

test-python-all: ## the same with Ray, PyTorch, Hugging Face datasets and webdataset (5 GB of packages)
	@scripts/tools ensure pytest-all
	cargo build -p alluxio-cli
	crates/alluxio-python/run-tests pytest-all $(PYTEST_ARGS)

wheel: ## Python wheels for Linux, amd64 and arm64, glibc from 2.17 on, in dist/
	@scripts/tools ensure wheel
	crates/alluxio-python/build-wheels dist

e2e: image ## the whole product on a real single-node Kubernetes (root; Go for the first time)
	@scripts/tools ensure e2e
	cargo build -p e2e
	target/debug/e2e $(E2E_ARGS)

bench: ## whole paths beside limits and peers, as a table and in dist/bench.json
	@scripts/tools ensure bench
	cargo build --release -p alluxio-cli -p bench
	BENCH_PYTHON=$(BENCH_PYTHON) target/release/bench run --json dist/bench.json $(BENCH_ARGS)

chaos: ## kills, restarts and upgrades under a mount, then ten minutes of stress (root, fio; docs/chaos.json)
	@scripts/tools ensure build
	mkdir -p dist
	cargo test --release -p alluxio-fuse --test mount -- chaos $(CURDIR)/dist/chaos.json
	cargo test --release -p alluxio-fuse --test mount -- stress $(CURDIR)/dist/stress.json

# Both packages, so that the libraries are those of `make bench`.
bench-functions: ## inner functions of the client, one by one
	@scripts/tools ensure build
	cargo bench -p bench -p alluxio-cli --bench functions -- --quick

bench-python: ## the Python wheel beside the published SDK and s3fs, in dist/bench-python.json
	@scripts/tools ensure bench-python
	cargo build --release -p alluxio-cli
	crates/alluxio-python/build-wheels dist "$$(rustc -vV | sed -n 's/^host: //p')"
	crates/alluxio-python/run-bench dist $(BENCH_ARGS)

bench-report: ## docs/performance and docs/python/performance: tables and plots from dist/bench*.json
	@compgen -G 'dist/bench*.json' || { echo "there are no figures yet: make bench, make bench-python"; exit 1; }
	[ ! -e dist/bench.json ] || cargo run --release -p bench -- report dist/bench.json
	[ ! -e dist/bench-python.json ] || python3 crates/alluxio-python/bench/report.py dist/bench-python.json

image: ## one static binary in an OCI archive, dist/alluxio-dataset.tar
	@scripts/tools ensure image
	cargo xtask image --output dist/alluxio-dataset.tar

lint: ## format, clippy, generated files, layers, dependencies, chart
	@scripts/tools ensure lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask codegen --check
	cargo xtask layers
	cargo deny --log-level error check bans licenses sources
	helm lint --strict charts/alluxio-dataset

fmt: ## format the code
	cargo fmt --all

codegen: ## write the generated files: CRDs, protobuf code, install manifest, reference
	@scripts/tools ensure codegen
	cargo xtask codegen

tools: ## install everything that any target needs
	@scripts/tools ensure all

clean: ## remove what was built (not the cached tools)
	cargo clean
	rm -rf dist
