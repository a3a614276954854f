// Graceful shutdown for an http.Server: what is in flight ends, what is idle is closed, and all of it within a limit.
// It hears of the end by guard's messages on Node's channel (GUARD_NODE_IPC=on), or by a signal alone.
//
//   const drain = drainable(server, { websockets: wss.clients, finished: () => database.end() });
//   app.use(drain.middleware); // before all others
'use strict';

// guard says in seconds when it would kill; it may also say none.
const stopTimeout = 1000 * (Number(process.env.GUARD_STOP_TIMEOUT) || 10);

/**
 * @param server an http.Server
 * @param websockets whatever is open now, each with close(code, reason), as in the set that the library ws keeps
 * @param grace milliseconds for websockets to answer, and for connections without a request to send one; half the
 *   time that is left at most
 * @param finished called when the last connection has ended; a promise is waited for
 */
module.exports = function drainable(server, { websockets = new Set(), grace = 5000, finished = () => {} } = {}) {
  let state = 'serving'; // then draining: serving on, but not ready; then stopping
  let asked = null; // when the stop request came, as far as it is known
  const connections = new Map(); // each with its number of requests in flight

  server.on('connection', (socket) => {
    connections.set(socket, 0);
    socket.on('close', () => connections.delete(socket));
  });

  const inFlight = () => [...connections.values()].reduce((sum, requests) => sum + requests, 0);

  function middleware(request, response, next) {
    const { socket } = request;
    connections.set(socket, connections.get(socket) + 1);
    response.on('close', () => {
      if (!connections.has(socket)) return;
      connections.set(socket, connections.get(socket) - 1);
      // Its head may have gone out before the drain, with the promise of keeping the connection.
      if (state === 'stopping') closeIfIdle(socket);
    });

    // Decided when the head is written, since the drain may begin while the request is in flight.
    const { writeHead } = response;
    response.writeHead = (...head) => {
      if (state !== 'serving') response.setHeader('Connection', 'close');
      return writeHead.apply(response, head);
    };

    if (state === 'stopping') {
      response.writeHead(503, { 'Content-Type': 'text/plain', 'Content-Length': 9 });
      response.end('stopping\n');
    } else {
      next();
    }
  }

  function closeIfIdle(socket) {
    if (connections.get(socket) === 0) socket.destroySoon();
  }

  // Load balancers are still to notice: nobody is refused, but nobody is to keep a connection either.
  function drain() {
    if (state !== 'serving') return;
    state = 'draining';
    asked = performance.now();
    console.log('not ready any more');
  }

  // Asked again, it changes nothing: guard sends a signal too if half of the time has passed.
  function stop() {
    if (state === 'stopping') return;
    if (!server.listening) process.exit(0);
    state = 'stopping';
    const now = performance.now();
    const limit = 0.9 * stopTimeout - (now - (asked ?? now));

    server.close(end);
    server.closeIdleConnections(); // Node 18 leaves them open
    for (const websocket of websockets) websocket.close(1001, 'going away');
    console.log(`draining, ${inFlight()} in flight`);

    // What Node does not close by itself: a connection that has not sent anything yet, and a websocket.
    setTimeout(() => [...connections.keys()].forEach(closeIfIdle), Math.min(grace, limit / 2)).unref();
    setTimeout(() => {
      console.log(`out of time, ${inFlight()} in flight`);
      process.exit(1);
    }, limit).unref();
  }

  async function end() {
    await finished();
    console.log('drained');
    // An open channel with a listener keeps the event loop alive.
    if (process.connected) process.disconnect();
  }

  process.on('message', (message) => {
    if (message === 'drain') drain();
    if (message === 'shutdown') stop();
  });
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, stop);

  return { middleware, inFlight, isReady: () => state === 'serving' };
};
