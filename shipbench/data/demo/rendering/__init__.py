"""Rendered images: dSprites' sprites and CLEVR-like scenes, drawn with numpy alone.

Every picture is a function of its parameters, built from operations that IEEE 754 defines exactly (sums, products,
quotients, square roots; sines are rounded): neither the number of workers nor the machine should change a pixel.
"""
