"""One inference request as its client sent it, and the way of the answer back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from server.errors import BodyTooLargeError, ContendedError, RequestError
from server.gateway.drive import Drive
from server.gateway.endpoints import Endpoint
from server.gateway.upstream.upstream import Exchange
from server.units import Seconds

if TYPE_CHECKING:
    from server.gateway.connection import ClientConnection

__all__ = ["Client", "Header", "body_too_large"]

Header = tuple[bytes, bytes]

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _NobodyWaits:
    """uvicorn wakes a request's task by an event; these requests have no task."""

    def set(self) -> None:
        """Wake nobody."""


class Client:
    """Who waits for one answer.

    uvicorn sees it as the connection's current cycle: the first block of attributes is what it reads and writes.
    """

    response_complete = False
    disconnected = False
    message_event: ClassVar = _NobodyWaits()

    expects_continue = False
    """The client sends the body only when it is told to."""
    cors = b""
    """Header lines that let a browser read the answer."""
    refusal: RequestError | None = None
    """The request is to be refused with this, unread."""
    left = False
    """The client is gone; nothing can be sent any more."""
    _body = b""
    _more: list[bytes] | None = None
    """What has come of the body after its first part."""
    size = 0
    """Bytes of the body that have come."""
    _counted = 0
    """Of them, what the listener counts as half there."""
    _body_is_whole = False
    _turn = False
    _drive: Drive | None = None

    def __init__(  # noqa: PLR0913  # facts of one head
        self,
        connection: ClientConnection,
        endpoint: Endpoint,
        *,
        method: bytes,
        fields: Mapping[bytes, bytes],
        received_at: Seconds,
        chunked: bool,
        keep_alive: bool,
    ) -> None:
        """`chunked`: whether the client understands chunks, which HTTP/1.0 does not."""
        self._connection = connection
        self.keep_alive = keep_alive
        self.endpoint = endpoint
        self.method = method
        self.fields = fields
        """The headers, names in lower case."""
        self.received_at = received_at
        self.chunked = chunked
        """Whether parts of the answer's body are framed as chunks."""

    # --- the request comes in -----------------------------------------------------------------------------------------

    def take_body(self) -> bytes:
        """All of it, once the path runs; to be asked once, so that a large body is not kept."""
        body, more = self._body, self._more
        self._body, self._more = b"", None
        return body if more is None else b"".join((body, *more))

    def add(self, piece: bytes, limit: int) -> None:
        """A part of the body has come."""
        self.size += len(piece)
        if self.size > limit or self.refusal is not None:
            self.refuse(body_too_large(limit))
        elif not self._body:
            self._body = piece
        elif self._more is None:
            self._more = [piece]
        else:
            self._more.append(piece)

    def waits_for_more(self) -> None:
        """The rest of the body comes with a later read: until then, what is there is held for nothing."""
        listener = self._connection.listener
        listener.half_bytes += self.size - self._counted
        self._counted = self.size
        if listener.half_bytes > listener.settings.max_in_flight_bytes:
            self.refuse(
                ContendedError(
                    "The gateway receives too many bodies at once (`gateway.max_in_flight_bytes`). Try again later.",
                    retry_after=Seconds(1.0),
                )
            )

    def body_is_whole(self) -> None:
        """The last part of the body has come."""
        self._body_is_whole = True
        if self._turn:
            self._start()

    def refuse(self, error: RequestError) -> None:
        """Answer with this error when the turn comes, read no more, and close the connection."""
        if self.refusal is None and self._drive is None:
            self.refusal, self.keep_alive = error, False
            self._body, self._more = b"", None
            self.body_is_whole()

    def your_turn(self) -> None:
        """The answers before this one on the connection are sent."""
        self._turn = True
        if self._body_is_whole:
            self._start()
        elif self.expects_continue:
            self._connection.transport.write(_CONTINUE)

    def lost(self) -> None:
        """The connection is gone."""
        self.left = self.disconnected = True
        if self._drive is None:
            self._start()  # for the record
        else:
            self._drive.cancel()

    def cancel(self) -> None:
        """Raise `CancelledError` in the path, if it is running."""
        if self._drive is not None:
            self._drive.cancel()

    def _start(self) -> None:
        if self._drive is None:
            if self._counted:
                self._connection.listener.half_bytes -= self._counted
                self._counted = 0
            self._drive = self._connection.serve(self)
            self._drive.start()

    # --- the answer goes out ------------------------------------------------------------------------------------------

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole answer in one write; `lines` are header lines, each with its end."""
        shown = b"" if self.method == b"HEAD" else body
        self._connection.transport.write(
            b"%b%b%bcontent-length: %d\r\n\r\n%b" % (self._begin(status), lines, self._end(), len(body), shown)
        )
        self._complete()

    def start(self, status: int, lines: bytes, length: bytes | None = None) -> None:
        """Send an answer's head; its body follows in parts, of that length in bytes altogether if it is known."""
        if length is not None:
            self.chunked = False
            framing = b"content-length: %b\r\n\r\n" % length
        elif self.chunked:
            framing = b"transfer-encoding: chunked\r\n\r\n"
        else:
            self.keep_alive = False
            framing = b"\r\n"
        self._connection.transport.write(b"".join((self._begin(status), lines, self._end(), framing)))

    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends bytes as they are, framing included."""
        return self._connection.transport.write

    def more(self, data: bytes) -> None:
        """Send a part of the body."""
        self._connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def finish(self, data: bytes = b"") -> None:
        """Send the body's last part."""
        if data:
            self.more(data)
        if self.chunked:
            self._connection.transport.write(b"0\r\n\r\n")
        self._complete()

    def flows_from(self, exchange: Exchange) -> None:
        """Make this exchange wait while the client is slow."""
        self._connection.flows_from(exchange)

    def close_after_answer(self) -> None:
        """Close the connection in order once the answer that is being sent is complete."""
        self.keep_alive = False

    def cut(self) -> None:
        """Close the connection now, so that the client sees that the answer is not complete."""
        self.response_complete = True
        self._connection.transport.close()

    def _begin(self, status: int) -> bytes:
        return self._connection.listener.begin_of_head(status, self._connection.server_state)

    def _end(self) -> bytes:
        """The lines that depend on the client."""
        if self.keep_alive and not self.cors:
            return b""
        return self.cors + (b"" if self.keep_alive else b"connection: close\r\n")

    def _complete(self) -> None:
        self.response_complete = True
        self._connection.answered(self)


def body_too_large(limit: int) -> BodyTooLargeError:
    """The refusal of a body that is longer than `limit` bytes."""
    return BodyTooLargeError(f"The body is longer than {limit} bytes (`gateway.max_body_bytes`); send less.")
