"""What the servicers of all areas have in common."""

from __future__ import annotations

from graybox.service.desk import Desk


class Area:
    """One area of the service. The areas are mixed into one servicer, which gRPC serves."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
