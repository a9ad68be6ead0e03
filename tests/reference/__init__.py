"""Literal implementations of the methods: slow loops over the blocks of a plain timm vision transformer.

They share no code with ``shipbench``. In ``tests/parity``, the fast implementation is tested against them, and they are
tested against numbers of the official implementations.
"""
