# Every target does its own set-up and can be run again at any time.
.PHONY: help demo check test test-short soak bench format clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

demo: ## a real library's own tests, in a sandbox and outside, side by side
	scripts/setup demo
	.venv/bin/python scripts/demo.py

check: ## format, lint, types, import contracts, the C compiler's warnings
	scripts/setup check
	scripts/check

test: ## everything a change must pass
	scripts/setup tests
	scripts/run_tests

test-short: ## no Docker, under a minute
	scripts/setup check
	.venv/bin/python -m pytest -q -m "not docker and not gvisor and not process and not soak" -n 3 --dist worksteal tests/unit

soak: ## fuzz, leaks, floods: hours
	scripts/setup tests
	scripts/soak

bench: ## the speed of every hot path, as ratios in one run
	scripts/setup tests
	scripts/bench_peers
	.venv/bin/python -m tests.bench

format: ## mend the format
	scripts/setup check
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean: ## forget what was built
	rm -rf .venv .cache build dist src/ringfence/guest/bin
