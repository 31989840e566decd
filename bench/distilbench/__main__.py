"""`python -m distilbench`."""

import sys

from distilbench.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
