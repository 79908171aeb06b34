"""Deadline: the moment after which nothing new is begun; what is done by then is kept."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock.

    Attributes:
        at_s: The moment, in seconds of ``time.monotonic``.
        cut: What was cut short because of it, for the record; filled in by :meth:`cuts`.
    """

    at_s: float = float("inf")
    cut: list[str] = field(default_factory=list)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment so many seconds from now."""
        return cls(time.monotonic() + seconds)

    def share(self, part: float) -> Deadline:
        """The moment when ``part`` (0..1) of the time that is left has passed; both keep one record."""
        return Deadline(time.monotonic() + part * self.left_s, self.cut) if self.at_s < float("inf") else self

    @property
    def left_s(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(self.at_s - time.monotonic(), 0.0)

    def cuts(self, what: str) -> bool:
        """Whether the moment has passed, so that ``what`` is not begun; noted once, with a warning in the log."""
        if self.left_s > 0:
            return False
        if what not in self.cut:
            self.cut.append(what)
            _LOG.warning("time limit: %s cut short", what)
        return True
