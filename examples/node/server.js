// A server without dependencies that drains: what is in flight ends, what comes new gets a 503, then it exits 0.
// docs/node.md tells why it does what it does; express.js is the same with Express and ws.
//
//   guard -- node examples/node/server.js
//   GUARD_NODE_IPC=on GUARD_READY=notify guard -- node examples/node/server.js
'use strict';

const http = require('node:http');
const acceptWebsocket = require('./websocket');
const drainable = require('./drain');

const server = http.createServer();
const websockets = new Set();
const drain = drainable(server, { websockets });

function routes(request, response) {
  const url = new URL(request.url, 'http://localhost');
  const milliseconds = Number(url.searchParams.get('ms') ?? 1000);
  const answer = (status, text) => {
    const body = `${text}\n`;
    response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  };
  switch (url.pathname) {
    case '/':
      answer(200, `run ${process.env.GUARD_RUN ?? 1}`);
      break;
    case '/health': // for GUARD_HEALTH_CHECK: the event loop turns
      answer(200, 'healthy');
      break;
    case '/ready': // for load balancers
      if (drain.isReady()) answer(200, 'ready');
      else answer(503, 'not ready');
      break;
    case '/pid':
      answer(200, process.pid);
      break;
    case '/in-flight':
      answer(200, drain.inFlight() - 1); // this one is none of them
      break;
    case '/slow':
      setTimeout(answer, milliseconds, 200, 'done');
      break;
    case '/upload': {
      let bytes = 0;
      request.on('data', (data) => { bytes += data.length; });
      request.on('end', () => answer(200, bytes));
      break;
    }
    case '/stream':
      response.write('begun\n');
      setTimeout(() => response.end('done\n'), milliseconds);
      break;
    case '/crash':
      throw new Error('asked to crash');
    case '/hang':
      for (;;);
    default:
      answer(404, 'not here');
  }
}

server.on('request', (request, response) => drain.middleware(request, response, () => routes(request, response)));

server.on('upgrade', (request, socket) => {
  const websocket = acceptWebsocket(request, socket);
  websockets.add(websocket);
  socket.on('close', () => websockets.delete(websocket));
});

server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? '0.0.0.0', () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
  process.send?.('ready');
});
