"""For gunicorn: a GET is answered with the worker's pid; a POST begins to be answered, and ends with what it has sent."""

import os


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["REQUEST_METHOD"] == "GET":
        yield f"pid {os.getpid()}\n".encode()
    else:
        yield b"begun\n"
        yield environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
