"""`graybox dashboard`: shows the runs of a root directory in the browser."""

from __future__ import annotations

from collections.abc import Sequence

from graybox.cli.parent import stop_with_parent


def main(argv: Sequence[str] | None = None) -> int:
    """Blocks until it is told to stop. Answers the exit code: 0 after a clean stop, 2 when it could not start."""
    stop_with_parent()
    try:
        # Here, so that Ctrl-C while it loads is answered as quietly as later.
        from graybox.dashboard.main import main as serve

        return serve(argv)
    except KeyboardInterrupt:
        return 130
