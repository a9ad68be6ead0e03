"""A cosine classifier of frozen features, as a method for shipbench."""
