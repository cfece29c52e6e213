"""One process at a time: a lock file that says so when it makes somebody wait, and never makes them wait for ever."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

SOON, LATE = 10, 3 * 3600  # seconds of waiting: after which to say so, and to go on alone


class NoLocksError(OSError):
    """The folder can be written, but its file system locks no files."""


@contextmanager
def turn(file: Path, making: str) -> Iterator[OSError | None]:
    """Hold the lock `file` while the block runs; or run it all the same, and yield the error that stood in the way.

    The file stays when the lock is released: whoever waits on one that was removed would hold a lock that nobody else
    can see.

    Args:
        making: what the others are told to be waiting for.
    """
    lock = trouble = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Who may write into the folder may lock: filelock's own mode can shut out the others of a class.
        lock = FileLock(file, mode=0o600 | file.parent.stat().st_mode & 0o666)
        _acquire(lock, file, making)
    except OSError as e:
        lock, trouble = None, e
    try:
        yield trouble
    finally:
        if lock:
            lock.release()


def _acquire(lock: FileLock, file: Path, making: str) -> None:
    try:
        lock.acquire(timeout=0)
        return
    except (OSError, NotImplementedError) as e:  # Timeout is an OSError
        failed = e
    # A file system without locks may answer as if somebody else held this one. A file that nobody else knows tells.
    probe = file.with_name(f".{uuid.uuid4().hex}.lock")
    probe.touch()
    try:
        FileLock(probe).acquire(timeout=0).lock.release()
    except (OSError, NotImplementedError):
        raise NoLocksError(f"files in {file.parent} cannot be locked") from None
    finally:
        with suppress(OSError):
            probe.unlink()
    if not isinstance(failed, Timeout):
        raise failed
    with suppress(Timeout):
        lock.acquire(timeout=SOON)
        return
    print(f"another process is making {making} (lock file {file}): waiting for it", file=sys.stderr, flush=True)
    try:
        lock.acquire(timeout=LATE)
    except Timeout:
        raise OSError(f"another process has held {file} for {LATE / 3600:.0f} hours") from None
