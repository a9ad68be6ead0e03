"""Images and labels of a task, and the fingerprint that identifies them."""

from shipbench.data.loading import Copy, find, fingerprint, load, require_room

__all__ = ["Copy", "find", "fingerprint", "load", "require_room"]
