"""The embedded demo suite: small tasks made from files in pinned wheels and from renderers."""
