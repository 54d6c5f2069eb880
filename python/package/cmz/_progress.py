"""How far a conversion is, told to a callback or shown on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

# Units of phases other than bytes.
_UNITS = {"planning": "tensors"}


@dataclass(frozen=True)
class Progress:
    """How far a conversion is."""

    #: "planning", "compressing", "decompressing", "verifying" or "hashing"; empty before the first.
    phase: str
    #: Bytes of uncompressed data; tensors, while planning.
    done: int
    total: int
    #: The file that is being read, and which of how many it is, from 0.
    file: str | None
    number: int
    count: int


#: True for a bar on standard error, or a function of a `Progress`, which is called some twenty times a second.
ProgressOption: TypeAlias = bool | Callable[[Progress], object] | None
Callback: TypeAlias = Callable[..., object] | None


@contextmanager
def callback_for(progress: ProgressOption) -> Iterator[Callback]:
    """What the native module calls."""
    if not progress:
        yield None
    elif callable(progress):
        yield lambda *parts: progress(Progress(*parts))
    else:
        bar = _Bar()
        try:
            yield lambda *parts: bar.show(Progress(*parts))
        finally:
            bar.close()


class _Bar:
    """A bar of tqdm where there is one, otherwise a line that is written over."""

    def __init__(self) -> None:
        self._shown: tuple[str, str | None] | None = None
        self._bar: Any = None
        try:
            from tqdm import tqdm

            self._tqdm: Any = tqdm
        except ImportError:
            self._tqdm = None

    def show(self, progress: Progress) -> None:
        if not progress.phase:
            return
        shown = (progress.phase, progress.file)
        if shown != self._shown:
            self.close()
            self._shown = shown
            if self._tqdm is not None:
                unit = _UNITS.get(progress.phase, "B")
                self._bar = self._tqdm(total=progress.total, desc=progress.phase, unit=unit, unit_scale=unit == "B")
        if self._bar is not None:
            self._bar.update(progress.done - self._bar.n)
        else:
            percent = 100 * progress.done // max(1, progress.total)
            print(f"\r{progress.phase} {percent} %", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown is not None:
            print(file=sys.stderr)
        self._bar = self._shown = None
