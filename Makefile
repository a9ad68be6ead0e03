.PHONY: check test floors docs demo

check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:
	python -m pytest

# The lowest versions of the direct dependencies, for the Python that runs this, in an environment of their own.
floors:
	python -m pip install --quiet uv
	python -m uv venv --clear build/floors
	python -m uv pip install --quiet --python build/floors --resolution lowest-direct -e '.[dev]'
	build/floors/bin/shipbench --help >build/floors/help.txt
	build/floors/bin/python -m pytest

docs:
	mkdocs build --strict

demo:
	shipbench demo
