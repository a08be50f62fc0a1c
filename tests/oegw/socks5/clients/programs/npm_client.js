// npm's package "socks" as a client: one command, what came of it as lines of JSON.
//
//   npm_client.js COMMAND PROXY PROXY_PORT HOST PORT [USER PASSWORD]
//
// With DECLARED=destination in the environment, associate declares where it will send to, as many
// programs do, in place of where it will send from.
'use strict';
const dgram = require('dgram');
const { SocksClient } = require('socks');

const [command, proxy, proxyPort, host, port, userId, password] = process.argv.slice(2);
const unknown = command === 'associate' && process.env.DECLARED !== 'destination';
const options = {
  proxy: { host: proxy, port: Number(proxyPort), type: 5, userId, password },
  command,
  // An association is for whatever the client sends to; it does not know its own port yet.
  destination: unknown ? { host: '0.0.0.0', port: 0 } : { host, port: Number(port) },
  timeout: 10000,
};

const say = (what, found) => console.log(JSON.stringify({ what, ...found }));
const fail = (error) => { say('failed', { text: String(error.message) }); process.exit(1); };

const client = new SocksClient(options);
client.on('error', fail);
client.on('bound', (info) => say('bound', { place: info.remoteHost }));
client.on('established', (info) => {
  say('established', { place: info.remoteHost || null });
  if (command === 'associate') exchange(info);
  else converse(info.socket);
});
client.connect();

function converse(socket) {
  let heard = '';
  socket.on('data', (octets) => {
    heard += octets;
    if (heard.includes('over\n')) { say('heard', { text: heard }); socket.destroy(); }
  });
  socket.on('error', fail);
  socket.resume();
  socket.write('over\n');
}

function exchange(info) {
  const relay = info.remoteHost;
  const socket = dgram.createSocket(relay.host.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (octets) => {
    const frame = SocksClient.parseUDPFrame(octets);
    say('heard', { text: frame.data.toString(), from: frame.remoteHost });
    socket.close();
    info.socket.destroy();
  });
  const remoteHost = { host, port: Number(port) };
  const frame = SocksClient.createUDPFrame({ remoteHost, data: Buffer.from('over') });
  socket.send(frame, relay.port, relay.host);
  setTimeout(() => fail(new Error('no datagram')), 5000).unref();
}
