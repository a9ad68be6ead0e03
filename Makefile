.PHONY: check test floors docs demo

check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:
	python -m pytest

# The parts of the suite that touch the libraries whose lowest versions are promised.
FLOOR_TESTS = tests/test_spec.py tests/test_record.py tests/test_packaging.py \
	tests/backbones/test_architectures.py tests/methods tests/parity/test_golden.py tests/parity/test_golden_vpt.py \
	tests/results tests/trackers tests/training/test_training.py tests/training/test_resuming.py \
	tests/data/formats tests/data/test_images.py \
	tests/report/test_main_table.py tests/report/test_writing.py tests/report/test_normalise.py \
	tests/report/test_statistics.py

# The lowest versions of the direct dependencies, for the Python that runs this, in an environment of their own.
floors:
	python -m pip install --quiet uv
	python -m uv venv --clear build/floors
	python -m uv pip install --quiet --python build/floors --resolution lowest-direct -e '.[dev]'
	build/floors/bin/shipbench --help >build/floors/help.txt
	build/floors/bin/python -m pytest $(FLOOR_TESTS)

docs:
	mkdocs build --strict

demo:
	shipbench demo
