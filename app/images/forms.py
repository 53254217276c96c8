"""Forms (multipart/form-data) of requests that have a file."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

MAX_PARTS = 8  # files, and other fields
MAX_TEXT_BYTES = 2**16  # of a field that is no file
# a parameter of a header: its name, and a value that is quoted or not (RFC 9110, section 5.6.6)
_PARAMETER = re.compile(rb';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:\\.|[^"\\])*"|[^;]*)', re.DOTALL)
_DISPOSITION = b"content-disposition"


async def read_form(request: Request) -> FormData:
    """The form of a request. The caller of `request.close()` closes its files.

    Raises HTTPException (400) if it cannot be parsed, and OSError if the temporary folder for large files is full.
    """
    # small limits, because only a few fields are allowed
    parser = _Parser(
        request.headers, request.stream(), max_files=MAX_PARTS, max_fields=MAX_PARTS, max_part_size=MAX_TEXT_BYTES
    )
    try:
        form = request._form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    except (HTTPException, OSError):
        raise
    except Exception as error:  # python-multipart raises many classes for bodies that it cannot parse
        raise HTTPException(400, f"the multipart body cannot be parsed: {error}") from error
    return form


class _Parser(MultiPartParser):
    """Starlette's parser, for which a part whose name is in `filename*` alone (RFC 8187) is a file too.

    python-multipart passes over `filename*`, as RFC 7578 forbids it in forms. Clients of several languages send it for
    names beyond ASCII, and the file would be read as a text. The name itself is not used.
    """

    def on_header_end(self) -> None:
        """A header of a part is complete."""
        if self._current_partial_header_name.lower() == _DISPOSITION:
            self._current_partial_header_value = with_filename(self._current_partial_header_value)
        super().on_header_end()


def with_filename(disposition: bytes) -> bytes:
    """A Content-Disposition with a `filename`, if it has only an extended one (`filename*`, `filename*0`)."""
    names = {match[1].lower() for match in _PARAMETER.finditer(disposition)}
    extended = any(name.startswith(b"filename*") for name in names)
    return disposition + b'; filename="file"' if extended and b"filename" not in names else disposition
