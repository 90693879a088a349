"""Where the client logs: a file, standard error, or a logger of Python's ``logging``."""

from __future__ import annotations

import logging
import os
from typing import Any, Mapping, Tuple, Union

from . import _native

#: A logger, a path, ``(path, level)``, or ``{"path": ..., "level": ...}``.
Logger = Union[logging.Logger, str, "os.PathLike[str]", Tuple[Any, str], Mapping[str, Any], None]

_log = logging.getLogger("alluxio_dataset")


def start(logger: Logger) -> logging.Logger:
    """Begins the process' log as asked for, and returns the logger for what Python's half has to say.
    A process has one log of the client: the first that is asked for stays."""
    if logger is None:
        return _log
    if isinstance(logger, logging.Logger):
        begun = _native.log_to_logger(logger, _level(logger.getEffectiveLevel()))
    else:
        path, level = _path_and_level(logger)
        begun = _native.log_to_file(path, _level(level))
    result = logger if isinstance(logger, logging.Logger) else _log
    if not begun:
        result.debug("the client of this process logs already; its log stays where it is")
    return result


def _path_and_level(logger: Any) -> tuple[Any, Any]:
    if isinstance(logger, Mapping):
        unknown = set(logger) - {"path", "level"}
        if unknown:
            raise ValueError(f"logger has no {sorted(unknown)[0]!r}; it takes path and level")
        path, level = logger.get("path"), logger.get("level", "info")
    elif isinstance(logger, tuple):
        path, level = logger
    else:
        path, level = logger, "info"
    return (None if path is None else os.fspath(path)), level


def _level(level: Any) -> str:
    if isinstance(level, int):
        named = [(40, "error"), (30, "warn"), (20, "info"), (10, "debug")]
        return next((name for number, name in named if level >= number), "trace")
    name = str(level).lower()
    return {"warning": "warn", "critical": "error"}.get(name, name)
