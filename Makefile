# Every command of the project; each makes the environment it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PROTO := $(wildcard proto/dicom_adapter/v1/*.proto)

.PHONY: default help demo run test torture lint types imports check bench proto clean

default: check

help: ## List what can be made.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name text; do printf '  make %-7s %s\n' "$$name" "$$text"; done

.venv/installed: pyproject.toml .ci/constraints.txt
	@echo "Making the environment in .venv; this takes a minute or two."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed ## Send a study through the whole of it, and show what came out.
	$(BIN)/dicom-adapter demo

run: .venv/installed ## Start the adapter and leave it running.
	$(BIN)/dicom-adapter serve

test: .venv/installed ## All tests.
	$(BIN)/pytest -n 3 --dist worksteal

torture: .venv/installed ## Kills, power cuts, faults and outages, some hundred times; as root.
	TORTURE=$${TORTURE:-8} SOAK=$${SOAK:-1200} $(BIN)/pytest -n 2 --dist worksteal -rs tests/torture

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed
	$(BIN)/mypy

imports: .venv/installed
	$(BIN)/lint-imports

check: lint types imports test ## Lint, types, import contract and tests in one.

bench: .venv/installed ## Measure receiving beside DCMTK, Orthanc and stock pynetdicom.
	$(BIN)/python -m benchmarks.receive

proto: .venv/installed ## Make dicom_adapter/v1 from proto/.
	rm -rf dicom_adapter/v1
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=. --grpc_python_out=. \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--mypy_out=. --mypy_grpc_out=. $(PROTO)
	echo '"""Made from proto/ by `make proto`; not written by hand."""' > dicom_adapter/v1/__init__.py

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
