"""Trains an experiment and serves it: `python graybox_backend.py --experiment FILE.py --root_directory DIR`."""

from __future__ import annotations

import sys

from graybox.cli.backend import main

if __name__ == "__main__":
    sys.exit(main())
