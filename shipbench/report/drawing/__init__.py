"""From charts in data coordinates to shapes in points, which every image format writes."""
