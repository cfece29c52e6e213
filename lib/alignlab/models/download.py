"""Files that others offer, from an https address or a folder: taken if they have the bytes that we know, else refused.

A file is read into memory and compared before anybody sees it, so nothing half-read is left anywhere.
"""

from __future__ import annotations

import hashlib
import os
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

LARGEST = 16_000_000  # bytes of a file
SILENT, SLOW = 30, 300  # seconds without a byte, and for one file: after which a download is given up
REMEDY = "it is not used, and trained where it is needed. Fetch it again, or from a place that you trust more"


class Refused(Exception):
    """A file that is not used; the message says why, and what to do."""


class _SentOn(urllib.request.HTTPRedirectHandler):
    """An address that sends on to another one, as releases do: to one of the same kind only."""

    def redirect_request(self, request, answer, code, message, headers, address):
        return super().redirect_request(request, answer, code, message, headers, place(address))


def place(where: str | Path) -> str:
    """An address that may be asked, or the path of a folder that is there.

    Raises:
        ValueError: it is neither. Plain http is for this machine only.
    """
    where = str(where)
    if "://" in where:
        parts = urlsplit(where)
        own = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not (own or parts.scheme == "https"):
            raise ValueError(f"nothing is fetched from {where}: name an address that begins with https://, or a folder")
        return where
    folder = os.path.abspath(Path(where).expanduser())
    if not os.path.isdir(folder):
        raise ValueError(f"there is no folder {folder}: name one, or an address that begins with https://")
    return folder


def content(where: str, file: str, size: int, sha256: str) -> bytes:
    """The bytes of a file, if they are the ones that are expected.

    Args:
        where: as `place` returns it.
        file: its name there, without any folder.
        size: of the file, in bytes; no more than that is read.
        sha256: of the file, in hexadecimal digits.

    Raises:
        Refused: there is none, or it has other bytes.
        OSError, http.client.HTTPException: the place cannot be reached, or broke off.
        ValueError: the name of the file is a path, or `size` is above `LARGEST`.
    """
    if file != Path(file).name or file in ("", ".", "..") or "\\" in file:
        raise ValueError(f"the file is {file!r}: a name without a folder")
    if size > LARGEST:
        raise ValueError(f"{file} has {size} bytes, but no file here is larger than {LARGEST}")
    if "://" in where:
        found = _download(f"{where.rstrip('/')}/{file}", size)
    elif not (path := Path(where) / file).is_file():  # nor a pipe, which would be waited for
        raise Refused(f"{path} is not there: {REMEDY}")
    else:
        with path.open("rb") as f:
            found = f.read(size + 1)
    digest = hashlib.sha256(found).hexdigest()
    if digest == sha256:
        return found
    many = f"{len(found)} bytes" if len(found) <= size else f"more than {size} bytes, of which the first have"
    raise Refused(
        f"{file} in {where} is not the file that is expected. Found: {many}, sha256 {digest}; "
        f"expected: {size} bytes, sha256 {sha256}: {REMEDY}"
    )


def _download(address: str, size: int) -> bytes:
    found, late = b"", time.monotonic() + SLOW
    try:
        with urllib.request.build_opener(_SentOn).open(address, timeout=SILENT) as answer:
            while len(found) <= size and (piece := answer.read1(min(1 << 16, size + 1 - len(found)))):
                found += piece
                if time.monotonic() > late:
                    raise TimeoutError(f"{address} was not sent in {SLOW} s")
    except HTTPError as e:
        e.close()
        raise Refused(f"{address} is answered with {e.code} {e.reason}: {REMEDY}") from None
    except ValueError as e:  # it was sent on to an address of another kind
        raise Refused(f"{address} was sent on, and {e}: {REMEDY}") from None
    return found
