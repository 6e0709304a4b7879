"""The `model` field of a multipart form (RFC 7578): where an upload says whom it is for."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,200})"|([^;\s]{1,200}))', re.IGNORECASE)
_NAMED_MODEL = re.compile(
    rb'^content-disposition:[^\r\n]*;\s*name="?model"?\s*(?:;|\r?$)', re.IGNORECASE | re.MULTILINE
)


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary of a multipart form's content type; None for anything else."""
    if not content_type.strip().lower().startswith(b"multipart/form-data"):
        return None
    match = _BOUNDARY.search(content_type)
    return (match[1] or match[2]) if match else None


def model_field(body: bytes, boundary: bytes) -> tuple[int, int] | None:
    """Where in the body the value of `model` begins and ends; None if it is not there.

    Lines may end with LF alone, as most parsers allow; a part's first line says how.
    """
    delimiter = b"--" + boundary
    at = body.find(delimiter)
    while at >= 0:
        head = at + len(delimiter)
        line = b"\n" if body.startswith(b"\n", head) else b"\r\n"
        end_of_head = body.find(line + line, head)
        if end_of_head < 0:
            return None
        begin = end_of_head + 2 * len(line)
        end = body.find(line + delimiter, end_of_head + len(line))
        if end < 0:
            return None
        if _NAMED_MODEL.search(body, head, end_of_head):
            return (begin, end) if begin <= end else None
        at = end + len(line)
    return None
