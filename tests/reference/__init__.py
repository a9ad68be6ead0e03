"""The methods written down literally: slow loops over the blocks of a plain timm vision transformer.

Nothing here is shared with ``shipbench``: the fast implementation is tested against these equations, and the
equations are tested against numbers of the official implementations (``tests/parity``).
"""
