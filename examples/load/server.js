// An ordinary HTTP server: node server.js [--close]
//
// It answers on PORT, after WORK milliseconds, with its pid and the time of its start. With --close it has the handler that most
// guides show: it takes no more connections, and ends when those that it has are answered. guard asks with SIGTERM, pm2 with SIGINT.
'use strict';
const http = require('node:http');

const work = Number(process.env.WORK);
const started = Math.round(performance.timeOrigin * 1000);
const server = http.createServer((request, response) => {
  const answer = () => response.end(`${process.pid} ${started}\n`);
  if (work > 0) setTimeout(answer, work);
  else answer();
});
server.listen(process.env.PORT);

if (process.argv.includes('--close')) {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => server.close(() => process.exit(0)));
  }
}
