"""A web server for tests, whose threads print nothing where another test would see it."""

from http.server import ThreadingHTTPServer


class QuietServer(ThreadingHTTPServer):
    """It says nothing when a client goes away in the middle of an answer."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass
