.PHONY: check test docs demo

check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:
	python -m pytest

docs:
	mkdocs build --strict

demo:
	shipbench demo
