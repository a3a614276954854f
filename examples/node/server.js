// A plain HTTP server that drains on SIGTERM: what is in flight ends, what comes new gets a 503, then it exits 0.
//
//   guard -- node examples/node/server.js
'use strict';

const http = require('node:http');

let draining = false;

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const answer = (status, text) => {
    // Asked at the end: a request that was in flight when the drain began must close its connection too.
    if (draining) response.setHeader('Connection', 'close');
    response.writeHead(status, { 'Content-Type': 'text/plain' });
    response.end(`${text}\n`);
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
  console.log('draining');
  // Called when the last connection has ended; idle keep-alive connections are closed at once (Node 19 and later).
  server.close(() => console.log('drained'));
});

server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? '0.0.0.0', () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
});
