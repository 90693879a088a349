"""A progress bar, in a terminal or a notebook, without a dependency.

A notebook that shows widgets gets one; a terminal gets a line that is written over; anything else gets
nothing, unless it is asked for: then a line for each change.
"""

from __future__ import annotations

import sys
from typing import Any, Mapping, Optional

_WIDTH = 30


class Bar:
    """Shows how far a load is.

    >>> with Bar("load s3://bucket/train") as bar:
    ...     bar.show("RUNNING", {"filesDone": 3, "filesTotal": 9, "bytesDone": 1, "bytesTotal": 4})
    """

    def __init__(self, title: str, wanted: Optional[bool] = None, stream: Any = None):
        self.title = title
        self.stream = stream or sys.stderr
        self.in_notebook = stream is None and _in_notebook()
        self.in_terminal = bool(getattr(self.stream, "isatty", lambda: False)())
        self.is_shown = (self.in_notebook or self.in_terminal) if wanted is None else wanted
        self._display = None
        self._last = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_exception: Any) -> None:
        if self.is_shown and self.in_terminal and not self.in_notebook and self._last:
            self.stream.write("\n")
            self.stream.flush()

    def show(self, state: str, counts: Mapping[str, Any]) -> None:
        """Shows a state and its counts."""
        line = f"{self.title} {line_of(state, counts)}"
        if not self.is_shown or line == self._last:
            return
        if self.in_notebook:
            self._show_in_notebook(line)
        elif self.in_terminal:
            # Blanks wipe the rest of a longer line.
            self.stream.write("\r" + line.ljust(len(self._last)))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()
        self._last = line

    def _show_in_notebook(self, line: str) -> None:
        from IPython.display import display

        shown = {"text/plain": line}
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True)
        else:
            self._display.update(shown, raw=True)


def line_of(state: str, counts: Mapping[str, Any]) -> str:
    """The text of a bar."""
    if not counts:
        return state
    done, total = counts.get("bytesDone", 0), counts.get("bytesTotal", 0)
    share = min(done / total, 1.0) if total else (1.0 if state == "SUCCEEDED" else 0.0)
    bar = ("#" * round(share * _WIDTH)).ljust(_WIDTH, ".")
    parts = [
        f"[{bar}] {share:4.0%}",
        f"{counts.get('filesDone', 0)}/{counts.get('filesTotal', 0)} files",
        f"{_size(done)}/{_size(total)}",
    ]
    if counts.get("bytesPerSecond"):
        parts.append(f"{_size(counts['bytesPerSecond'])}/s")
    if counts.get("etaSeconds") is not None and state == "RUNNING":
        parts.append(f"{counts['etaSeconds']} s left")
    if counts.get("failureCount"):
        parts.append(f"{counts['failureCount']} failed")
    return " ".join([*parts, state])


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    shell = shell.get_ipython() if shell is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
