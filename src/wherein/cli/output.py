"""Standard output, of which what the system refuses is told in a sentence: a full disk is no defect."""

import io
from typing import TYPE_CHECKING

from wherein.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Output(io.FileIO):
    """The file descriptor that everything is printed to. Of a pipe whose reader went away it says BrokenPipeError."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write bytes; returns how many. Raises InputError where they cannot be written."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"Cannot write to standard output: {error.strerror}; send it elsewhere.") from error


def telling(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """A stream to the same place, buffered as `stream` is, that writes through an `Output`.

    What is no plain descriptor (a console of Windows, what tests put in its place) is given back as it is.
    """
    unbuffered = isinstance(stream.buffer, io.FileIO)
    if not unbuffered and not isinstance(getattr(stream.buffer, "raw", None), io.FileIO):
        return stream
    output = Output(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        output if unbuffered else io.BufferedWriter(output),  # a raw one serves, as under python -u
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
