// The same with Express and ws: npm install, then
//
//   GUARD_NODE_IPC=on GUARD_READY=notify guard -- node examples/node/express.js
'use strict';

const http = require('node:http');
const express = require('express');
const { WebSocketServer } = require('ws');
const drainable = require('./drain');

const app = express();
const server = http.createServer(app);
const wss = new WebSocketServer({ server });
const drain = drainable(server, { websockets: wss.clients });

app.use(drain.middleware); // before all others
app.get('/', (request, response) => response.send(`run ${process.env.GUARD_RUN ?? 1}\n`));
app.get('/health', (request, response) => response.send('healthy\n'));
app.get('/ready', (request, response) => response.sendStatus(drain.isReady() ? 200 : 503));
app.get('/slow', (request, response) => setTimeout(() => response.send('done\n'), Number(request.query.ms ?? 1000)));

wss.on('connection', (websocket) => {
  websocket.on('error', () => websocket.terminate());
  websocket.on('message', (message) => websocket.send(message.toString()));
});

server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? '0.0.0.0', () => {
  console.log(`listening on port ${server.address().port}`);
  process.send?.('ready');
});
