"""What the proxies of the test suite share: an HTTP server in a thread of this program that passes
requests on, body piece by piece, over a connection of its own for each.

Every header goes through as it came, Host too, because a signature covers it; only what belongs to
one connection does not. A reply whose length is not declared is read whole and then has one.
"""

import contextlib
import http.client
import http.server
import os
import socket
import socketserver
import struct
import sys
import threading
import urllib.parse

from .server import Endpoint, free_ports

PIECE_BYTES = 1 << 16
OF_ONE_CONNECTION = {"connection", "keep-alive", "proxy-connection", "te", "trailer",
                     "transfer-encoding", "upgrade", "expect"}


class _HttpServer(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, handler):
        self.open = set()
        super().__init__(("127.0.0.1", free_ports(1)[0]), handler)

    def server_bind(self):
        # HTTPServer's own asks the name service who we are, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address

    def get_request(self):
        connection, address = super().get_request()
        self.open.add(connection)
        return connection, address

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """A peer that went away is no news; anything else is a mistake in a proxy."""
        if not isinstance(sys.exc_info()[1], (OSError, http.client.HTTPException)):
            super().handle_error(request, client_address)

    def end(self):
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Listener(Endpoint):
    """An HTTP server in a thread. `handler` is a subclass of Handler, whose instances find this
    object as `self.proxy`."""

    handler = None

    def start(self):
        self._http = _HttpServer(type("Handler", (self.handler,), {"proxy": self}))
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02},
                         daemon=True).start()
        return self

    def stop(self):
        """Open connections are closed, whatever they are in the middle of."""
        self._http.end()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client; a subclass defines `answer`, called for each request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy = None

    def do_any(self):
        self._unread = int(self.headers.get("content-length", 0))
        if "transfer-encoding" in self.headers:
            self._unread = 0
            self.close_connection = True
            self.refuse(411, "MissingContentLength", "the proxies read bodies of known length only")
            return
        self.path_only, _, query = self.path.partition("?")
        self.query = urllib.parse.parse_qsl(query, keep_blank_values=True)
        self.answer()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any

    def log_message(self, *_):
        pass

    def body(self):
        """The request's body in pieces, once."""
        while self._unread:
            try:
                piece = self.rfile.read(min(PIECE_BYTES, self._unread))
            except OSError:
                piece = b""
            if not piece:
                # Not one of the errors that mean that the server went away: see `send`.
                raise ConnectionError("the client went away within its request")
            self._unread -= len(piece)
            yield piece

    def sent_headers(self):
        """The pairs as they came, without those of this connection."""
        return [(name, value) for name, value in self.headers.items()
                if name.lower() not in OF_ONE_CONNECTION]

    def forward(self, upstream, target, headers, body, method=None):
        """Sends a request and returns the reply, whose body is still to be read. When the server is
        not there or breaks off, the client's connection is reset, as the server's own would be."""
        try:
            return send(upstream, method or self.command, target, headers, body)
        except (OSError, http.client.HTTPException):
            self.reset()
            raise

    def relay(self, reply, pieces=None, length=None):
        """Passes a reply on. `pieces` replaces its body, `length` the length that is declared."""
        pieces = pieces_of(reply) if pieces is None else pieces
        declared = length_of(reply) if length is None else length
        if declared is None:
            whole = b"".join(pieces)
            pieces, declared = [whole], len(whole)
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            if name.lower() not in OF_ONE_CONNECTION | {"content-length"}:
                self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(declared))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(piece)
        except (OSError, http.client.HTTPException):
            self.reset()
            raise
        finally:
            reply.close()

    def refuse(self, status, code, message, headers=()):
        """Answers with an error as S3 words them, after the body, so that the connection stays."""
        for _ in self.body():
            pass
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response_only(status)
        for name, value in [*headers, ("Content-Type", "application/xml"),
                            ("Content-Length", str(len(text)))]:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def reset(self):
        """Ends the connection with RST. The descriptor is taken from under the files over it, whose
        own closing would send FIN first."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            os.close(self.connection.detach())


def send(upstream, method, target, headers, body):
    """One request to `upstream` (host:port) on a new connection; returns the reply."""
    connection = http.client.HTTPConnection(upstream)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    # The connection then belongs to the reply, and is closed with it.
    connection.putheader("Connection", "close")
    connection.endheaders()
    try:
        for piece in body:
            connection.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        # A server may answer before it has read everything.
        for _ in body:
            pass
    return connection.getresponse()


def length_of(reply):
    """The declared length of the body, or of what GET would send in a reply to HEAD."""
    declared = reply.headers.get("content-length")
    return None if declared is None else int(declared)


def pieces_of(reply):
    """The body of a reply in pieces. A body that ends early is an error, not an end."""
    missing = reply.length or 0
    while piece := reply.read(PIECE_BYTES):
        missing -= len(piece)
        yield piece
    if missing > 0:
        raise ConnectionError("the server broke off within its reply")
