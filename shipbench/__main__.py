"""``python -m shipbench``."""

from shipbench.cli import main

if __name__ == "__main__":
    main()
