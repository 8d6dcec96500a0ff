"""The other system: prints what it is told. `python receiver.py [port]`, 9000 by default."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802 (the name is http.server's)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(f"{self.path}: {body}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 9000), Receiver).serve_forever()
