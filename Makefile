.PHONY: check test floors trackers docs demo

check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:
	python -m pytest

# The tests that touch the libraries whose lowest versions are promised.
FLOOR_TESTS = tests/test_spec.py tests/backbones/test_architectures.py tests/parity/test_golden.py \
	tests/methods/test_every_method.py tests/methods/test_peft.py tests/methods/test_precision.py \
	tests/training/test_training.py tests/training/test_resuming.py \
	tests/data/formats tests/data/test_images.py tests/data/test_fetch.py tests/cli/test_push.py \
	tests/cli/test_model_cards.py tests/trackers \
	tests/results/test_store.py tests/results/test_sealed_files.py tests/results/test_foreign_records.py \
	tests/report/test_main_table.py tests/report/test_writing.py tests/report/test_statistics.py

# The lowest versions of the direct dependencies, for the Python that runs this, in an environment of their own.
floors:
	@python -c "import sys; sys.exit(sys.version_info >= (3, 12) and \
		'The lowest pandas has no wheel for this Python; run make floors with Python 3.10 or 3.11.')"
	python -m pip install --quiet 'uv>=0.8'
	python -m uv venv --clear --python "$$(python -c 'import sys; print(sys.executable)')" build/floors
	python -m uv pip install --quiet --python build/floors --resolution lowest-direct -e '.[dev]'
	build/floors/bin/shipbench --help >build/floors/help.txt
	build/floors/bin/python -m pytest $(FLOOR_TESTS)

# trackio needs an older Pillow and mlflow an older PyArrow than the newest, so they get an environment of their own on
# top of the one that runs this. The clone is installed first, because builds would use the setuptools of the other
# environment. The extra mlflow is a client without a server.
TRACKERS = trackio mlflow
trackers:
	python -m venv --clear build/trackers
	build/trackers/bin/python -m pip install --quiet --no-deps -e .
	python -c "import sysconfig; paths = {sysconfig.get_path(kind) for kind in ('purelib', 'platlib')}; \
		print('import site;', *('site.addsitedir(%r);' % path for path in sorted(paths)))" \
		>"$$(build/trackers/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/below.pth"
	build/trackers/bin/python -m pip install --quiet "shipbench[$$(echo $(TRACKERS) | tr ' ' ,)]" $(filter mlflow,$(TRACKERS))
	build/trackers/bin/python -m pytest -n 0 -k "trackio or mlflow_server" tests/trackers/test_libraries.py

docs:
	mkdocs build --strict

demo:
	shipbench demo
