"""The methods that come with shipbench, whatever else is installed."""

from importlib.metadata import entry_points

from shipbench.methods import registry

SHIPPED = sorted(
    point.name for point in entry_points(group=registry.GROUP) if point.value.startswith(("shipbench.", "shipbench_"))
)
