"""Services of the operating system: files, cache folder, console, signals, processes."""
