"""In the place of a transport whose client has left."""

from __future__ import annotations

from typing import Final

__all__ = ["GONE"]


class _Gone:
    """Takes everything, does nothing."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        """Write nothing."""

    def close(self) -> None:
        """It is closed."""

    def abort(self) -> None:
        """It is closed."""

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


GONE: Final = _Gone()
