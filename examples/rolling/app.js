// The app of the demonstration, as most are: it takes a second to start, works on each request for 100 ms, and sends back
// what it got. With --close it has the handler for SIGTERM that most guides show, without it none.
'use strict';
const http = require('node:http');
const { hostname } = require('node:os');

const START = 1000; // ms, for what an app does before it listens: load its modules, connect to its database
const WORK = 100; // ms

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const answer = `${hostname()} ${request.method} ${request.url}\n${Buffer.concat(pieces)}`;
    setTimeout(() => response.end(answer), WORK);
  });
});
// Longer than nginx keeps an idle connection to it (60 s), so that a request never meets Node's closing of one.
server.keepAliveTimeout = 75_000;

if (process.argv.includes('--close')) {
  process.on('SIGTERM', () => server.close(() => process.exit(0)));
}
setTimeout(() => server.listen(8080), START);
