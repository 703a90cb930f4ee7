"""A window on the neurons: readers see a copy, which the owner renews between two steps, at most twice a second."""

from __future__ import annotations

import threading
import time

from graybox.model_with_ops import NetworkWithOps
from graybox.neuron_statistics import copy_statistics
from graybox.snapshot import NeuronStatistics

COPY_SECONDS = 0.5


class NeuronWindow:
    """Any thread reads; the owner renews. wake: set when a reader wants a newer copy and the owner may be asleep."""

    def __init__(self, network: NetworkWithOps, wake: threading.Event) -> None:
        self._network = network
        self._wake = wake
        self._copy = NeuronStatistics(step=0)
        self._copied_at = 0.0
        self._asked = False
        self._closed = False
        self._ready = threading.Condition()

    def read(self, timeout: float) -> NeuronStatistics:
        """A copy at most half a second old; an older one when the owner does not come round within timeout seconds."""
        with self._ready:
            if time.monotonic() - self._copied_at > COPY_SECONDS and not self._closed:
                self._asked = True
                self._wake.set()
                self._ready.wait_for(lambda: not self._asked, timeout)
            return self._copy

    def renew_if_asked(self, step: int) -> None:
        """For the owner, between two steps: copy when somebody waits for it."""
        if not self._asked:
            return
        with self._ready:
            self._copy = copy_statistics(self._network, step)
            self._copied_at = time.monotonic()
            self._asked = False
            self._ready.notify_all()

    def expire(self) -> None:
        """The neurons were acted on: whoever reads next sees the effect, however young the copy is."""
        self._copied_at = 0.0

    def close(self) -> None:
        """Nobody renews any more; readers get the last copy at once."""
        with self._ready:
            self._closed = True
            self._asked = False
            self._ready.notify_all()
