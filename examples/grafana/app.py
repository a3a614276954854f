#!/usr/bin/env python3
"""The app of `check`: it serves the socket of GUARD_LISTEN, one client after the other, and `/crash` ends it."""

import os
import socket
import time


def notify(text):
    """sd_notify(3)"""
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)


def work(seconds):
    """Uses the CPU."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


time.sleep(1)  # as long as many apps need to start
notify("READY=1")
listener = socket.socket(fileno=3)
cache = []
while True:
    client, _ = listener.accept()
    with client:
        request = client.recv(4096)
        if request.startswith(b"GET /crash "):
            os._exit(3)
        work(0.002)
        cache.append(bytearray(20_000))
        time.sleep(0.05)
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\ndone\n")
