"""How a failed step is told: to the terminal, the journal, the wire and the page alike."""

from __future__ import annotations

import traceback

from graybox.errors import GrayboxError


def describe_error(error: Exception) -> dict[str, str]:
    """What went wrong, in one line, and the traceback: of the user's own code where it happened in a worker."""
    message = str(error) if isinstance(error, GrayboxError) else f"{type(error).__name__}: {error}"
    trace = getattr(error, "trace", "") or "".join(traceback.format_exception(error))
    return {"error": message[:2_000], "traceback": trace[-20_000:]}
