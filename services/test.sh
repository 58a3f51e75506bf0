#!/usr/bin/env bash
# Everything CI runs, on services of its own that are stopped at the end whatever happens. Called by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
stack="test-$$"
clippy=(env ${CLIPPY:-})

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --check

step "build and lint"
"${clippy[@]}" cargo test --no-run

step "services"
trap 'python3 services/stack.py down --name "$stack"' EXIT
python3 services/stack.py up --name "$stack" --ports free
environment=$(python3 services/stack.py env --name "$stack")
eval "$environment"

step "tests"
"${clippy[@]}" cargo test --no-fail-fast

step "shipped pipelines"
# The binary of the tests: `cargo run` would build some dependencies again, with other features.
streamer="${CARGO_TARGET_DIR:-target}/debug/streamer"
"$streamer" lint pipelines pipelines/examples
"$streamer" test pipelines pipelines/examples

step "the README's demo"
python3 services/demo.py --streamer "$streamer" --seconds 3
