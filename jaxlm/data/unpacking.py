"""Parts of files, and zstd files, as streams of bytes."""

import io
from typing import Any, BinaryIO

from jaxlm.errors import UserError

READ_BYTES = 2**17
"""Bytes of a packed file that are read at once."""


class Limited(io.RawIOBase):
    """The next `count` bytes of a file."""

    def __init__(self, file: BinaryIO, count: int):
        self._file, self._left = file, count

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; 0 at the end."""
        raw = self._file.read(min(len(buffer), self._left))
        buffer[: len(raw)] = raw
        self._left -= len(raw)
        return len(raw)


class Unzstd(io.RawIOBase):
    """The content of a zstd file, of one frame or several.

    Raises UserError where zstandard is missing, and EOFError where the file ends within a frame.
    """

    def __init__(self, file: BinaryIO):
        try:
            import zstandard
        except ImportError:
            raise UserError("wants zstandard to be unpacked: pip install 'jaxlm[zstd]'") from None
        self._file, self._new = file, zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; 0 at the end."""
        while not self._ready:
            raw = self._file.read(READ_BYTES)
            if not raw:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            self._frame = self._frame or self._new()
            self._ready = self._frame.decompress(raw)
            if self._frame.eof:
                self._file.seek(-len(self._frame.unused_data), io.SEEK_CUR)  # the next frame begins there
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count
