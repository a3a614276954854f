"""For uvicorn: a GET is answered with the worker's pid; a POST begins to be answered, and ends with what it has sent."""

import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200})
    if scope["method"] == "GET":
        await send({"type": "http.response.body", "body": f"pid {os.getpid()}\n".encode()})
        return
    await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})
