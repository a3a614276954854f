"""A WSGI app: gunicorn server:app. It answers with the pid of its gunicorn, whichever worker it runs in."""

import os


def app(environ, start_response):
    body = f"{os.getppid()} 0\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
