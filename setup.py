"""The packages of the wheel; everything else is in pyproject.toml.

The folder ``baselines`` is installed as ``shipbench_baselines``: another project owns the name on the package index.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["shipbench", "shipbench.*"]), "shipbench_baselines"],
    package_dir={"shipbench_baselines": "baselines"},
)
