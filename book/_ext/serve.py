"""Serve the built site on localhost until interrupted."""

import argparse
import functools
import http.server


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    handler = functools.partial(QuietHandler, directory=arguments.folder)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), handler)
    except OSError as error:
        raise SystemExit(
            f"port {arguments.port} cannot be used ({error.strerror}): "
            "choose another with `make book PORT=8001`"
        ) from None
    print(f"The book: http://localhost:{arguments.port}/  (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


if __name__ == "__main__":
    main()
