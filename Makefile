# Works with any POSIX make. Everything lives in this folder: .venv, and rulemill-data once a server ran.

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'ARGS="..." is passed on by run, test, search and bench: make test ARGS="-k decode -x"'

run: ## set up if need be, and start a server with demo devices
	@sh scripts/setup.sh
	@exec .venv/bin/rulemill up --demo $(ARGS)

# Most tests wait for servers of their own, so more of them run at a time than there are cores.
JOBS = 4

test: ## set up if need be, and run the tests, JOBS=4 at a time
	@sh scripts/setup.sh dev
	@exec .venv/bin/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

search: ## run the tests of properties with examples that are new each time
	@sh scripts/setup.sh dev
	@exec .venv/bin/python -m pytest -n $(JOBS) --dist loadfile -m hypothesis --hypothesis-profile search $(ARGS)

check: ## lint, format, types, layers, generated files
	@sh scripts/setup.sh dev
	@failed=; \
	for step in 'ruff check .' 'ruff format --check .' 'mypy' 'mypy scripts/generate.py' 'lint-imports' \
		'python scripts/generate.py --check'; do \
		echo "== $$step"; .venv/bin/$$step || failed="$$failed; $$step"; \
	done; \
	test -z "$$failed" || { echo "failed: $${failed#; }" >&2; exit 1; }

format: ## mend layout and what the linter can mend
	@sh scripts/setup.sh dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

generate: ## write the generated pages and schemas in docs/ anew
	@sh scripts/setup.sh
	@.venv/bin/python scripts/generate.py

spec: ## list requirements with and without a test (SPEC_DIR: folder of the specifications)
	@sh scripts/setup.sh dev
	@exec .venv/bin/python -m tests.spec_report

bench: ## measure this machine (bench/README.md tells what)
	@sh scripts/setup.sh dev
	@test -f bench/run.py || { echo 'bench/run.py is not there yet' >&2; exit 1; }
	@exec .venv/bin/python bench/run.py $(ARGS)

.PHONY: help run test search check format generate spec bench
