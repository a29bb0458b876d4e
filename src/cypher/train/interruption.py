"""Ctrl-C as a wish that is looked at between steps, where a run can be left without a trace."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Remembers one Ctrl-C; a second one raises :class:`KeyboardInterrupt` at once.

    Only the main thread is sent signals, and only Python's own way of dealing with this one is replaced: elsewhere,
    and where a program or a shell has chosen another way, nothing changes.

    Example:
        >>> with Interruption() as interruption:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interruption.is_wanted
        True
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self._raises = False
        self._takes_over = False

    def __enter__(self) -> Interruption:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._takes_over = True
            signal.signal(signal.SIGINT, self._signalled)
        return self

    def __exit__(self, *failure: object) -> None:
        if self._takes_over:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that changes nothing: the first Ctrl-C ends it, too."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self.is_wanted or self._raises:
            raise KeyboardInterrupt
        self.is_wanted = True
