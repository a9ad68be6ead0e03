"""Images and labels of a task, and the fingerprint of the copy they came from."""

from shipbench.data.loading import fingerprint, load

__all__ = ["fingerprint", "load"]
