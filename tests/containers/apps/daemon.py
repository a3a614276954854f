"""A server that goes to the background by itself. With `tell` it says by sd_notify(3) which process it is then."""

import os
import socket
import sys
from wsgiref.simple_server import make_server

from wsgi import app

told, tells = os.pipe()
if os.fork():
    os.read(told, 1)
    sys.exit(0)
os.setsid()
server = make_server("", 8080, app)
if sys.argv[1:] == ["tell"]:
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = os.environ["NOTIFY_SOCKET"]
    abstract = path.startswith("@")
    notify.sendto(f"MAINPID={os.getpid()}\nREADY=1".encode(), "\0" + path[1:] if abstract else path)
os.write(tells, b".")
server.serve_forever()
