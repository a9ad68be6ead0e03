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
	tests/data/formats tests/data/test_images.py tests/data/test_fetch.py tests/cli/test_push.py \
	tests/report/test_main_table.py tests/report/test_writing.py tests/report/test_normalise.py \
	tests/report/test_statistics.py

# The lowest versions of the direct dependencies, for the Python that runs this, in an environment of their own.
floors:
	@python -c "import sys; sys.exit(sys.version_info >= (3, 12) and \
		'The lowest pandas has no wheel for this Python; run make floors with Python 3.10 or 3.11.')"
	python -m pip install --quiet 'uv>=0.8'
	python -m uv venv --clear --python "$$(python -c 'import sys; print(sys.executable)')" build/floors
	python -m uv pip install --quiet --python build/floors --resolution lowest-direct -e '.[dev]'
	build/floors/bin/shipbench --help >build/floors/help.txt
	build/floors/bin/python -m pytest $(FLOOR_TESTS)

docs:
	mkdocs build --strict

demo:
	shipbench demo
