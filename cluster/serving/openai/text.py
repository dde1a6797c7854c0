"""The text of an answer as its tokens come, up to the first of some texts that end it."""

from collections.abc import Sequence


class StopText:
    """Passes text on until one of `stops` is in it; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = tuple(stops), ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Return what may be shown, up to a stop text if that is now whole.

        >>> stop = StopText(["END"])
        >>> stop.push("one E"), stop.push("N"), stop.push("Done"), stop.stopped
        ('one ', '', '', True)
        """
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        shown = held[: len(held) - keep]
        self._held = held[len(held) - keep :]
        return shown

    def finish(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
