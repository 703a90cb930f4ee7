"""Starts the dashboard: python weights_lab.py --root_directory DIR [--backend HOST:PORT] [--host] [--port]."""

from __future__ import annotations

import sys

from graybox.cli.dashboard import main

if __name__ == "__main__":
    sys.exit(main())
