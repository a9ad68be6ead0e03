"""How the report names and prints things."""
