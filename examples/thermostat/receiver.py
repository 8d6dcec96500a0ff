"""The other system: prints what it is told. `python receiver.py [port]`, 9000 by default."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Receiver(BaseHTTPRequestHandler):
    """Answers every POST with 204, which says: heard, and there is nothing to add."""

    def do_POST(self):
        """Print path and body."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(f"{self.path}: {body}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Keep quiet about the rest."""


HTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 9000), Receiver).serve_forever()
