"""The embedded demo suite: small tasks made from pinned packages and from renderers."""
