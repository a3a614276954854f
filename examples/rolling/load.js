// The load: node load.js HOST
//
// Sends requests at a steady rate, whatever becomes of them, and counts each: GET and POST, by the port that tries again
// and by the one that does not, drawn at random so that no kind falls into step with the balancer's turns. Each has a
// connection of its own: nginx closes idle ones of its clients when it reloads, and what is lost by that has nothing to
// do with apps.
//
// Says "loading" when both ports have answered. At SIGTERM it waits for what is under way, prints its counts and ends.
'use strict';
const http = require('node:http');

const PAUSE = 10; // ms between two requests
const TIMEOUT = 5000; // ms
const AGAIN = 8080; // the port of nginx that tries the next server
const ONCE = 8081; // the one that does not
const KINDS = [
  { method: 'GET', port: AGAIN, count: 'get' },
  { method: 'GET', port: ONCE, count: 'once' },
  { method: 'POST', port: AGAIN, count: 'post' },
  { method: 'POST', port: ONCE, count: 'once' },
];

const host = process.argv[2];
const lost = { get: 0, post: 0, once: 0 };
const reasons = new Map();
const servers = new Set();
let sent = 0;
let underWay = 0;

// Calls back with what went wrong, or with nothing and the name of the server.
function ask({ method, port }, id, done) {
  const body = method === 'POST' ? `${id} `.repeat(500) : '';
  const options = { host, port, method, path: `/${id}`, agent: false, signal: AbortSignal.timeout(TIMEOUT) };
  const request = http.request(options, (response) => {
    const pieces = [];
    response.on('data', (piece) => pieces.push(piece));
    response.on('error', (error) => done(error.code));
    response.on('end', () => {
      if (response.statusCode !== 200) return done(String(response.statusCode));
      const [, server, echo] = /^(\S+) ([^]*)$/.exec(Buffer.concat(pieces)) ?? [];
      return echo === `${method} /${id}\n${body}` ? done(null, server) : done('another body');
    });
  });
  request.on('error', (error) => done(error.code));
  request.end(body);
}

function send() {
  const kind = KINDS[Math.floor(Math.random() * KINDS.length)];
  let open = true;
  sent += 1;
  underWay += 1;
  ask(kind, sent, (wrong, server) => {
    if (!open) return; // an error may follow another
    open = false;
    underWay -= 1;
    if (wrong === null) return void servers.add(server);
    lost[kind.count] += 1;
    const reason = `${kind.method} ${kind.port === ONCE ? 'once ' : ''}${wrong}`;
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  });
}

function report() {
  const why = [...reasons].map(([reason, count]) => `${reason} ×${count}`).join(', ');
  console.log(`sent ${sent} get ${lost.get} post ${lost.post} once ${lost.once} servers ${servers.size} why ${why || 'none'}`);
}

function load() {
  console.log('loading');
  const sending = setInterval(send, PAUSE);
  process.on('SIGTERM', () => {
    clearInterval(sending);
    const waiting = setInterval(() => {
      if (underWay > 0) return;
      clearInterval(waiting);
      report();
      process.exit(0);
    }, PAUSE);
  });
}

function begin() {
  ask(KINDS[0], 0, (first) => ask(KINDS[1], 0, (second) => (first || second ? setTimeout(begin, PAUSE) : load())));
}
begin();
