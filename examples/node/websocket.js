// The least of a websocket (RFC 6455): it says hello, hears a close, and closes in order. For more take a library such
// as ws.
'use strict';

const { createHash } = require('node:crypto');

const [TEXT, CLOSE] = [0x1, 0x8];

/** Answers the handshake, and gives what the server may do with the connection. */
module.exports = function accept(request, socket) {
  const key = `${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  socket.write([
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${createHash('sha1').update(key).digest('base64')}`,
    '\r\n',
  ].join('\r\n'));

  // One unfragmented frame, with less than 126 bytes.
  const send = (opcode, payload) => socket.write(Buffer.concat([Buffer.from([0x80 | opcode, payload.length]), payload]));

  let closing = false;
  function close(code, reason = '') {
    if (closing) return;
    closing = true;
    const payload = Buffer.from(`..${reason}`);
    payload.writeUInt16BE(code);
    send(CLOSE, payload);
  }

  socket.on('data', (frame) => {
    if ((frame[0] & 0xf) !== CLOSE) return;
    close(1000); // unless it is the answer to ours
    socket.end();
  });
  socket.on('end', () => socket.end());
  socket.on('error', () => socket.destroy());
  send(TEXT, Buffer.from('hello'));
  return { close };
};
