"""What the package needs of the system: files, cache, console, signals."""
