// server.js twice. A worker that dies is replaced, and SIGTERM at the primary is passed on.
const cluster = require('node:cluster');

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
  let stopping = false;
  cluster.on('exit', () => stopping || cluster.fork());
  process.on('SIGTERM', () => {
    stopping = true;
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
  });
} else {
  require('./server.js');
}
