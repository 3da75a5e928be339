"""`python -m facemix`."""

import sys

from facemix.cli import main

if __name__ == "__main__":
    sys.exit(main())
