"""`python -m graybox.cli` is `graybox`."""

from __future__ import annotations

import sys

from graybox.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
