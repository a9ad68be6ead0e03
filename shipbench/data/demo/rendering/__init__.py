"""Renderers of dSprites' sprites and of CLEVR-like scenes, in numpy alone.

Every picture is a function of its parameters. It uses only operations that IEEE 754 defines exactly (sums, products,
quotients, square roots) and rounded sines, so that neither the number of workers nor the machine changes a pixel.
"""
