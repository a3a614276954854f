// A plain HTTP server that drains on SIGTERM: what is in flight ends, what comes new gets a 503, then it exits 0.
//
//   guard -- node examples/node/server.js
'use strict';

const http = require('node:http');

let draining = false;
let inFlight = 0;

const server = http.createServer((request, response) => {
  inFlight += 1;
  response.on('close', () => { inFlight -= 1; });
  const url = new URL(request.url, 'http://localhost');
  const answer = (status, text) => {
    // Asked at the end: a request that was in flight when the drain began must close its connection too.
    if (draining) response.setHeader('Connection', 'close');
    const body = `${text}\n`;
    response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  };
  if (draining) {
    // On a connection that was open before the drain; a new one is refused.
    answer(503, 'draining');
    return;
  }
  switch (url.pathname) {
    case '/':
      answer(200, `run ${process.env.GUARD_RUN ?? 1}`);
      break;
    case '/pid':
      answer(200, process.pid);
      break;
    case '/in-flight':
      answer(200, inFlight - 1); // this one is none of them
      break;
    case '/slow':
      setTimeout(answer, Number(url.searchParams.get('ms') ?? 1000), 200, 'done');
      break;
    case '/crash':
      throw new Error('asked to crash');
    default:
      answer(404, 'not here');
  }
});

process.on('SIGTERM', () => {
  draining = true;
  console.log(`draining, ${inFlight} in flight`);
  // Called when the last connection has ended; idle keep-alive connections are closed at once (Node 19 and later).
  server.close(() => console.log('drained'));
});

server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? '0.0.0.0', () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
});
