// A GET is answered with the pid; a POST begins to be answered, and ends with what it has sent. All that is finished at
// SIGTERM, or at the message of guard's.
const http = require('node:http');

const server = http.createServer((request, response) => {
  if (request.method === 'GET') {
    response.end(`pid ${process.pid}\n`);
  } else {
    response.write('begun\n');
    request.pipe(response);
  }
});

function drain() {
  console.log('draining');
  server.close(() => process.connected && process.disconnect());
}

process.once('SIGTERM', drain);
process.on('message', (message) => message === 'shutdown' && drain());
server.listen(8080, () => {
  console.log('listening');
  process.send?.('ready');
});
