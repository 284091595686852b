"""What a person sees of a running sweep: counters looked at from a thread, nothing called back."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import TracebackType
from typing import Any

from bt._extension import omega_bt

_LOOK = 0.2


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _seen() -> bool:
    """Somebody watches: a notebook, or a terminal behind standard error."""
    return _in_notebook() or bool(getattr(sys.stderr, "isatty", lambda: False)())


class _Line:
    """One line of text, drawn over itself."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._width = 0

    def update(self, done: int, text: str) -> None:
        line = f"{done:,}/{self._total:,} {text}"
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def close(self) -> None:
        sys.stderr.write("\r" + " " * self._width + "\r")
        sys.stderr.flush()


class _Tqdm:
    """The bar of ``tqdm``; in a notebook with ipywidgets its widget."""

    def __init__(self, total: int) -> None:
        widget = _in_notebook() and importlib.util.find_spec("ipywidgets") is not None
        tqdm = importlib.import_module("tqdm.notebook" if widget else "tqdm").tqdm
        self._bar: Any = tqdm(total=total, unit="setting", leave=False, file=sys.stderr)

    def update(self, done: int, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


def _bar(total: int) -> _Line | _Tqdm:
    return _Tqdm(total) if importlib.util.find_spec("tqdm") is not None else _Line(total)


class Watch:
    """Draws progress while the ``with`` block runs."""

    def __init__(self, meter: omega_bt.Meter, progress: bool | None) -> None:
        self._meter = meter
        self._end = threading.Event()
        shown = _seen() if progress is None else progress
        self._thread = threading.Thread(target=self._show, name="bt-progress", daemon=True) if shown else None

    def __enter__(self) -> Watch:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _show(self) -> None:
        bar: _Line | _Tqdm | None = None
        told = False
        while True:
            ended = self._end.wait(_LOOK)
            total, cached, done, failed, best, _, memory, stopping = self._meter.read()
            if total and bar is None and not ended:
                bar = _bar(total)
            if bar is not None:
                best_text = "–" if best is None else f"{best:.4f}"
                bar.update(cached + done, f"{failed} failed · best {best_text} · {memory / 1e6:.0f} MB")
            # Also at the end: a short wave may be over before the next look.
            if stopping and not told:
                told = True
                sys.stderr.write("\nstopping after the running wave (at most about 30 s); again to stop waiting\n")
            if ended:
                if bar is not None:
                    bar.close()
                return
