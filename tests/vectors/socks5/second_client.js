'use strict';
// A second client of SOCKSv5 with the extensions of draft-kitamura-socks-ipv6-01.
//
// It was written from the draft and from the settled requirements (SK-1 to SK-44) alone, by an author
// who had not read the first implementation, so that a mistake has to be made twice to go unseen. Where
// the draft is silent it follows RFC 1928, RFC 1929 and the settled ambiguities.
//
//   node second_client.js vectors messages.json      checks every vector both ways
//   node second_client.js read octets.json           reads each {message, hex}, one line of JSON each: fields
//                                                    and how many octets were taken, or error: missing,
//                                                    malformed
//   node second_client.js cases                      the names of what it can play with a server
//   node second_client.js live '{"open": [{"host": ..., "port": ...}], "guarded": [{..., "user": ...,
//       "password": ..., "other": {"user": ..., "password": ...}}], "cases": [...]}'
//                                                    plays them with servers that are running, one line
//                                                    of JSON each: case, host, error (null: none)
//
// A failed expectation about the vectors ends the program with status 1 and says which it is.

const assert = require('node:assert/strict');
const dgram = require('node:dgram');
const fs = require('node:fs');
const net = require('node:net');
const { once } = require('node:events');

// ---- numbers of the draft, "Formats" -----------------------------------------------------------

const VERSION = 0x05;
const PASSWORD_VERSION = 0x01;
const METHOD = { none: 0x00, password: 0x02, unacceptable: 0xff };
const COMMAND = { connect: 0x01, bind: 0x02, udpAssociate: 0x03, addressAssociate: 0x08 };
const AND_ASSOCIATE = COMMAND.addressAssociate; // "(bit set)": combined commands are sums.
const ATYP = { ipv4: 0x01, name: 0x03, ipv6: 0x04, id: 0x08 };
const FLAG = { interfaceRequest: 0x01, preferDestination: 0x10 };
const INTERFACE_DATA = 0x01;
const REP = {
  succeeded: 0x00,
  notAllowed: 0x02,
  hostUnreachable: 0x04,
  refused: 0x05,
  commandNotSupported: 0x07,
  addressTypeNotSupported: 0x08,
  invalidAddress: 0x09,
};

// ---- our choices -------------------------------------------------------------------------------

const PATIENCE = 10000; // ms that an answer may take on a loaded machine.
const SILENCE = 150; // ms after which we believe that nothing will come.

// ---- octets ------------------------------------------------------------------------------------

class Truncated extends Error {}
class Malformed extends Error {}

class Octets {
  constructor(buffer) {
    this.buffer = buffer;
    this.at = 0;
  }

  take(count) {
    if (this.at + count > this.buffer.length) throw new Truncated(`wants ${count} octets at ${this.at}`);
    const taken = this.buffer.subarray(this.at, this.at + count);
    this.at += count;
    return taken;
  }

  octet() {
    return this.take(1)[0];
  }

  pair() {
    return this.take(2).readUInt16BE();
  }

  must(value, what) {
    const found = this.octet();
    if (found !== value) throw new Malformed(`${what} is ${found}, not ${value}`);
  }

  counted(what) {
    const count = this.octet();
    if (count === 0) throw new Malformed(`${what} is empty`);
    return this.take(count);
  }

  rest() {
    return this.take(this.buffer.length - this.at);
  }
}

const octet = (value) => Buffer.from([value]);

function pair(value) {
  const two = Buffer.alloc(2);
  two.writeUInt16BE(value);
  return two;
}

function counted(octets) {
  assert(octets.length <= 255, 'a counted field has at most 255 octets');
  return Buffer.concat([octet(octets.length), octets]);
}

function ipv4Octets(text) {
  assert(net.isIPv4(text), `${text} is no IPv4 address`);
  return Buffer.from(text.split('.').map(Number));
}

function ipv6Octets(text) {
  assert(net.isIPv6(text) && !text.includes('%'), `${text} is no IPv6 address`);
  const dotted = text.match(/^(.*:)(\d+\.\d+\.\d+\.\d+)$/);
  if (dotted) {
    const four = ipv4Octets(dotted[2]);
    text = dotted[1] + four.readUInt16BE(0).toString(16) + ':' + four.readUInt16BE(2).toString(16);
  }
  const groups = (part) => (part ? part.split(':') : []);
  const [before, after] = text.split('::');
  const front = groups(before);
  const back = groups(after);
  const zeros = after === undefined ? [] : Array(8 - front.length - back.length).fill('0');
  return Buffer.concat([...front, ...zeros, ...back].map((group) => pair(parseInt(group, 16))));
}

function ipv6Text(octets) {
  // RFC 5952, section 4: the longest run of zero groups is folded, the first one if two are as long.
  const groups = Array.from({ length: 8 }, (_, index) => octets.readUInt16BE(2 * index));
  let [start, length] = [0, 0];
  for (let from = 0; from < 8; from += 1) {
    let until = from;
    while (until < 8 && groups[until] === 0) until += 1;
    if (until - from > length) [start, length] = [from, until - from];
  }
  if (start === 0 && length === 5 && groups[5] === 0xffff) {
    return `::ffff:${Array.from(octets.subarray(12)).join('.')}`; // Section 5.
  }
  const hexadecimal = (part) => part.map((group) => group.toString(16)).join(':');
  if (length < 2) return hexadecimal(groups);
  return `${hexadecimal(groups.slice(0, start))}::${hexadecimal(groups.slice(start + length))}`;
}

function nameOf(octets) {
  // As the project settles it, where RFC 1928 says nothing: UTF-8, without control characters.
  let name;
  try {
    name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(octets);
  } catch {
    throw new Malformed('a name is not UTF-8');
  }
  if (/[\x00-\x1f\x7f]/.test(name)) throw new Malformed('a name has a control character');
  return name;
}

// An address is {type, value} for 1, 3, 4 and {type, class, realid} for an ADDRESS ID (4 octets, SK-11).

function readAddress(octets) {
  const type = octets.octet();
  switch (type) {
    case ATYP.ipv4:
      return { type, value: Array.from(octets.take(4)).join('.') };
    case ATYP.name:
      return { type, value: nameOf(octets.counted('a name')) };
    case ATYP.ipv6:
      return { type, value: ipv6Text(octets.take(16)) };
    case ATYP.id:
      return { type, class: octets.octet(), realid: octets.take(3).readUIntBE(0, 3) };
    default:
      throw new Malformed(`address type ${type} is unknown`);
  }
}

function writeAddress(address) {
  const type = octet(address.type);
  switch (address.type) {
    case ATYP.ipv4:
      return Buffer.concat([type, ipv4Octets(address.value)]);
    case ATYP.name:
      return Buffer.concat([type, counted(Buffer.from(address.value))]);
    case ATYP.ipv6:
      return Buffer.concat([type, ipv6Octets(address.value)]);
    case ATYP.id: {
      const real = Buffer.alloc(3);
      real.writeUIntBE(address.realid, 0, 3);
      return Buffer.concat([type, octet(address.class), real]);
    }
    default:
      throw new Malformed(`address type ${address.type} is unknown`);
  }
}

const id = (realid, itsClass = 0) => ({ type: ATYP.id, class: itsClass, realid });

function addressOf(text) {
  if (net.isIPv4(text)) return { type: ATYP.ipv4, value: text };
  if (net.isIPv6(text)) return { type: ATYP.ipv6, value: ipv6Text(ipv6Octets(text)) };
  return { type: ATYP.name, value: text };
}

// ---- messages: both directions beside each other -----------------------------------------------

const greeting = {
  read(octets) {
    octets.must(VERSION, 'VER');
    return { methods: Array.from(octets.counted('METHODS')) };
  },
  write: ({ methods }) => Buffer.concat([octet(VERSION), counted(Buffer.from(methods))]),
};

const methodChoice = {
  read(octets) {
    octets.must(VERSION, 'VER');
    return { method: octets.octet() };
  },
  write: ({ method }) => Buffer.from([VERSION, method]),
};

const credentials = {
  read(octets) {
    octets.must(PASSWORD_VERSION, 'VER of RFC 1929');
    return { user: octets.counted('UNAME').toString(), password: octets.counted('PASSWD').toString() };
  },
  write: (message) =>
    Buffer.concat([
      octet(PASSWORD_VERSION),
      counted(Buffer.from(message.user)),
      counted(Buffer.from(message.password)),
    ]),
};

const credentialsAnswer = {
  read(octets) {
    octets.octet(); // VER: 1, but there are servers that send 5, and the project lets them.
    return { status: octets.octet() };
  },
  write: ({ status }) => Buffer.from([PASSWORD_VERSION, status]),
};

const request = {
  read(octets) {
    octets.must(VERSION, 'VER');
    const [command, flag] = octets.take(2);
    return { command, flag, address: readAddress(octets), port: octets.pair() };
  },
  write: ({ command, flag, address, port }) =>
    Buffer.concat([Buffer.from([VERSION, command, flag]), writeAddress(address), pair(port)]),
};

const reply = {
  read(octets) {
    octets.must(VERSION, 'VER');
    const [code, flag] = octets.take(2);
    return { code, flag, address: readAddress(octets), port: octets.pair() };
  },
  write: ({ code, flag, address, port }) =>
    Buffer.concat([Buffer.from([VERSION, code, flag]), writeAddress(address), pair(port)]),
};

const controlRequest = {
  read(octets) {
    octets.must(0x00, 'RSV');
    const [subcommand, flag] = octets.take(2);
    return { subcommand, flag, address: readAddress(octets), port: octets.pair() };
  },
  write: ({ subcommand, flag, address, port }) =>
    Buffer.concat([Buffer.from([0x00, subcommand, flag]), writeAddress(address), pair(port)]),
};

const datagram = {
  read(octets) {
    octets.pair(); // FLAG, "Reserved X'0000'": written so, and not looked at where it is read.
    return { fragment: octets.octet(), address: readAddress(octets), port: octets.pair(), payload: octets.rest() };
  },
  write: ({ fragment = 0, address, port, payload }) =>
    Buffer.concat([pair(0), octet(fragment), writeAddress(address), pair(port), payload]),
};

function decode(message, buffer) {
  const octets = new Octets(buffer);
  const found = message.read(octets);
  if (octets.at !== buffer.length) throw new Malformed(`${buffer.length - octets.at} octets are left over`);
  return found;
}

// ---- a conversation with a server --------------------------------------------------------------

function patiently(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

class Conversation {
  static async open({ host, port, user, password: secret, greet = true }) {
    const socket = net.connect({ host, port, noDelay: true, allowHalfOpen: true });
    await patiently(once(socket, 'connect'), 'the connection');
    const conversation = new Conversation(socket);
    if (greet) await conversation.introduce(user, secret);
    return conversation;
  }

  constructor(socket) {
    this.socket = socket;
    this.buffer = Buffer.alloc(0);
    this.ended = false;
    this.awake = () => {};
    socket.on('data', (octets) => {
      this.buffer = Buffer.concat([this.buffer, octets]);
      this.awake();
    });
    for (const last of ['end', 'close', 'error']) {
      socket.on(last, () => {
        this.ended = true;
        this.awake();
      });
    }
  }

  async introduce(user, secret) {
    const method = user === undefined ? METHOD.none : METHOD.password;
    this.send(greeting, { methods: [method] });
    assert.deepEqual(await this.receive(methodChoice), { method }, 'the method that we offered is chosen');
    if (user === undefined) return;
    this.send(credentials, { user, password: secret });
    assert.deepEqual(await this.receive(credentialsAnswer), { status: 0 }, 'the password is taken');
  }

  send(message, fields) {
    this.socket.write(message.write(fields));
  }

  async until(arrived, what) {
    const waited = (async () => {
      while (!arrived()) {
        assert(!this.ended, `the server closed the connection before ${what}`);
        await new Promise((resolve) => {
          this.awake = resolve;
        });
      }
    })();
    await patiently(waited, what);
  }

  async receive(message) {
    let found;
    await this.until(() => {
      const octets = new Octets(this.buffer);
      try {
        found = message.read(octets);
      } catch (error) {
        if (error instanceof Truncated) return false;
        throw error;
      }
      this.buffer = this.buffer.subarray(octets.at);
      return true;
    }, 'a whole message');
    return found;
  }

  async text(count) {
    await this.until(() => this.buffer.length >= count, `${count} octets`);
    const found = this.buffer.subarray(0, count).toString();
    this.buffer = this.buffer.subarray(count);
    return found;
  }

  ask({ command, address, port, flag = 0 }) {
    this.send(request, { command, flag, address, port });
    return this.receive(reply);
  }

  associate(address, { preference = 0, flag = 0 } = {}) {
    return this.ask({ command: COMMAND.addressAssociate, address, port: preference, flag });
  }

  interfaceData(address, port, { flag = 0, subcommand = INTERFACE_DATA } = {}) {
    this.send(controlRequest, { subcommand, flag, address, port });
    return this.receive(reply);
  }

  async closedByServer() {
    const waited = (async () => {
      while (!this.ended) {
        await new Promise((resolve) => {
          this.awake = resolve;
        });
      }
    })();
    await patiently(waited, 'the end of the connection');
    assert.equal(this.buffer.length, 0, 'nothing follows a refusal');
    this.close();
  }

  close() {
    this.socket.destroy();
  }
}

function succeeded(answer, what) {
  assert.equal(answer.code, REP.succeeded, `${what}: REP ${answer.code}`);
  return answer;
}

function idOf(answer, what) {
  succeeded(answer, what);
  assert.equal(answer.address.type, ATYP.id, `${what}: the reply names an ADDRESS ID`);
  assert.equal(answer.address.class, 0, `${what}: CLASS is reserved and zero (SK-12)`);
  assert.notEqual(answer.address.realid, 0, `${what}: REALID is random (SK-13)`);
  return answer.address;
}

async function refused(conversation, asked, rep, what) {
  const answer = await conversation.ask(asked);
  assert.equal(answer.code, rep, `${what}: REP ${answer.code} instead of ${rep}`);
  await conversation.closedByServer(); // SK-10
}

// ---- destinations of our own, on both loopbacks ------------------------------------------------

const FOUR = '127.0.0.1';
const SIX = '::1';
const LOOPBACKS = [FOUR, SIX];
const familyOf = (text) => (net.isIPv4(text) ? ATYP.ipv4 : ATYP.ipv6);
const opened = [];

// Echoes, counts who connects, and remembers whom it saw last.
async function tcpDestination(host, port = 0) {
  const server = net.createServer((socket) => {
    server.connections += 1;
    socket.on('error', () => {});
    server.seen = { address: addressOf(socket.remoteAddress), port: socket.remotePort };
    socket.pipe(socket);
  });
  server.connections = 0;
  server.listen({ host, port, ipv6Only: true });
  await once(server, 'listening');
  opened.push(server);
  return server;
}

// Both families at one port, since a name leads to both and a request has one port.
async function bothDestinations() {
  for (;;) {
    const four = await tcpDestination(FOUR);
    try {
      return { [FOUR]: four, [SIX]: await tcpDestination(SIX, four.address().port), port: four.address().port };
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
  }
}

const udpSocket = (host) => dgram.createSocket(net.isIPv4(host) ? 'udp4' : { type: 'udp6', ipv6Only: true });

async function udpDestination(host) {
  const socket = udpSocket(host);
  socket.on('message', (payload, from) => {
    socket.seen = { address: addressOf(from.address), port: from.port };
    socket.send(Buffer.concat([Buffer.from('echo:'), payload]), from.port, from.address);
  });
  socket.bind(0, host);
  await once(socket, 'listening');
  opened.push(socket);
  return socket;
}

class Datagrams {
  static async open(host) {
    const socket = udpSocket(host);
    socket.bind(0, host);
    await once(socket, 'listening');
    opened.push(socket);
    return new Datagrams(socket);
  }

  constructor(socket) {
    this.socket = socket;
    this.arrived = [];
    this.awake = () => {};
    socket.on('message', (octets) => {
      this.arrived.push(octets);
      this.awake();
    });
  }

  get port() {
    return this.socket.address().port;
  }

  send(relay, fields) {
    this.socket.send(datagram.write(fields), relay.port, relay.host);
  }

  async next() {
    const waited = (async () => {
      while (!this.arrived.length) {
        await new Promise((resolve) => {
          this.awake = resolve;
        });
      }
    })();
    await patiently(waited, 'a datagram');
    return this.arrived.shift();
  }

  async silent(what) {
    await pause(SILENCE);
    assert.equal(this.arrived.length, 0, `${what}: nothing comes back`);
  }
}

async function echoes(conversation, words) {
  conversation.socket.write(words);
  assert.equal(await conversation.text(words.length), words, 'the destination echoes through the server');
}

// ---- the cases ---------------------------------------------------------------------------------
// An `open` server asks for no authentication, a `guarded` one for the password of `user`.
// Its rules allow loopback destinations; its names are four.test (127.0.0.1), six.test (::1), both.test
// (both) and none.test (no address); the reverse of 127.0.0.1 is four.test, of ::1 six.test.

const cases = {
  // SK-1: a method that nobody has is answered by X'FF', and the connection ends.
  async no_method_fits(server) {
    const conversation = await Conversation.open({ ...server, greet: false });
    conversation.send(greeting, { methods: [0x7e] });
    assert.deepEqual(await conversation.receive(methodChoice), { method: METHOD.unacceptable });
    await conversation.closedByServer();
  },

  // SK-1, RFC 1929: a wrong password is answered by a status other than zero, and the connection ends.
  async wrong_password(server) {
    const conversation = await Conversation.open({ ...server, greet: false });
    conversation.send(greeting, { methods: [METHOD.password] });
    assert.deepEqual(await conversation.receive(methodChoice), { method: METHOD.password });
    conversation.send(credentials, { user: server.user, password: `${server.password}x` });
    assert.notEqual((await conversation.receive(credentialsAnswer)).status, 0);
    await conversation.closedByServer();
  },

  // SK-2, SK-3, SK-33, SK-34: CONNECT to both families and a name; the reply's family is the one of our
  // connection, or with X'10' the one of the server's connection, and the port is the real one.
  async connect_and_flag(server) {
    for (const host of LOOPBACKS) {
      const destination = await tcpDestination(host);
      const names = [addressOf(host), addressOf(host === FOUR ? 'four.test' : 'six.test')];
      for (const address of names) {
        for (const flag of [0x00, FLAG.preferDestination]) {
          const conversation = await Conversation.open(server);
          const asked = { command: COMMAND.connect, address, port: destination.address().port, flag };
          const answer = succeeded(await conversation.ask(asked), `CONNECT ${address.value} FLAG ${flag}`);
          await echoes(conversation, 'hello');
          const family = flag ? familyOf(host) : familyOf(server.host);
          assert.equal(answer.address.type, family, `FLAG ${flag} for ${address.value}: the reply's family`);
          assert.equal(answer.port, destination.seen.port, 'BND.PORT is the port that the destination sees');
          if (flag) assert.deepEqual(answer.address, destination.seen.address, 'and so is BND.ADDR');
          if (!flag) assert.equal(answer.flag, 0, 'no FLAG is shown to who used no extension (SK-39)');
          conversation.close();
        }
      }
    }
  },

  // SK-9: octet by octet, and then all at once with data that follows the request.
  async pieces_and_optimism(server) {
    const destination = await tcpDestination(FOUR);
    const asked = { command: COMMAND.connect, flag: 0, address: addressOf(FOUR), port: destination.address().port };
    const slow = await Conversation.open(server);
    for (const one of request.write(asked)) {
      slow.socket.write(octet(one));
      await pause(1);
    }
    succeeded(await slow.receive(reply), 'octet by octet');
    await echoes(slow, 'slow');
    slow.close();
    const quick = await Conversation.open(server);
    quick.socket.write(Buffer.concat([request.write(asked), Buffer.from('early')]));
    succeeded(await quick.receive(reply), 'with data behind the request');
    assert.equal(await quick.text(5), 'early');
    quick.close();
  },

  // SK-24, SK-25, SK-21, SK-31, SK-14, SK-22: a dedicated ADDRESS ASSOCIATE connects to nothing, may be
  // repeated, gives the same ID for the same destination, and is followed by a CONNECT to the ID.
  async associate_then_connect(server) {
    const both = await bothDestinations();
    const conversation = await Conversation.open(server);
    const first = idOf(await conversation.associate(addressOf('both.test')), 'ASSOCIATE both.test');
    const again = idOf(await conversation.associate(addressOf('both.test')), 'ASSOCIATE both.test again');
    assert.deepEqual(again, first, 'the same destination has the same ID (SK-21)');
    const six = idOf(await conversation.associate(addressOf(SIX)), `ASSOCIATE ${SIX}`);
    assert.notDeepEqual(six, first, 'another destination has another ID');
    assert.equal(both[FOUR].connections + both[SIX].connections, 0, 'no connection was made (SK-24)');
    const asked = { command: COMMAND.connect, address: six, port: both.port };
    succeeded(await conversation.ask(asked), 'CONNECT by ID behind ADDRESS ASSOCIATE');
    await echoes(conversation, 'by ID');
    assert.deepEqual([both[FOUR].connections, both[SIX].connections], [0, 1], 'and the ID led to ::1');
    conversation.close();

    const later = await Conversation.open(server);
    succeeded(await later.ask({ ...asked, address: first }), 'CONNECT by ID on another connection');
    await echoes(later, 'by ID again');
    later.close();
  },

  // SK-26: X'09'; BND.ADDR is an ID that works afterwards, BND.PORT is the normal one.
  async combined_connect(server) {
    for (const host of LOOPBACKS) {
      const destination = await tcpDestination(host);
      const { port } = destination.address();
      const asked = { command: COMMAND.connect | AND_ASSOCIATE, address: addressOf(host), port };
      const conversation = await Conversation.open(server);
      const answer = await conversation.ask(asked);
      const known = idOf(answer, `X'09' ${host}`);
      await echoes(conversation, 'combined');
      assert.equal(answer.port, destination.seen.port, 'BND.PORT is normal');
      conversation.close();
      const later = await Conversation.open(server);
      succeeded(await later.ask({ ...asked, command: COMMAND.connect, address: known }), 'CONNECT by the ID');
      await echoes(later, 'later');
      later.close();
    }
  },

  // SK-28: a combined command whose base fails has the base's REP and no ID.
  async combined_failure(server) {
    const closed = await tcpDestination(FOUR);
    const { port } = closed.address();
    opened.splice(opened.indexOf(closed), 1);
    closed.close();
    await once(closed, 'close');
    const conversation = await Conversation.open(server);
    const answer = await conversation.ask({ command: COMMAND.connect | AND_ASSOCIATE, address: addressOf(FOUR), port });
    assert.equal(answer.code, REP.refused, "the base command's REP");
    assert.notEqual(answer.address.type, ATYP.id, 'no ID is allocated');
    await conversation.closedByServer();
  },

  // SK-5, SK-3: BIND and its two replies; FLAG X'10' shows the address where the peer can reach it.
  async bind(server) {
    for (const host of LOOPBACKS) {
      const conversation = await Conversation.open(server);
      const asked = { command: COMMAND.bind, address: addressOf(host), port: 0, flag: FLAG.preferDestination };
      const listening = succeeded(await conversation.ask(asked), `BIND for ${host}`);
      assert.equal(listening.address.type, familyOf(host), 'it listens in the family of the peer');
      const peer = net.connect({ host: listening.address.value, port: listening.port, localAddress: host });
      await patiently(once(peer, 'connect'), 'the peer of BIND');
      const accepted = succeeded(await conversation.receive(reply), 'the second reply of BIND');
      assert.deepEqual(accepted.address, addressOf(host), "the second reply shows the peer's address");
      assert.equal(accepted.port, peer.localPort, "and the peer's port");
      peer.pipe(peer);
      await echoes(conversation, 'bound');
      peer.destroy();
      conversation.close();
    }
  },

  // SK-29: X'0A': the ID of DST.ADDR with the listening port, then the ID of the peer with its port.
  async combined_bind(server) {
    for (const host of LOOPBACKS) {
      const conversation = await Conversation.open(server);
      const asked = { command: COMMAND.bind | AND_ASSOCIATE, address: addressOf(host), port: 0 };
      const listening = await conversation.ask(asked);
      const expected = idOf(listening, `X'0A' ${host}, first reply`);
      const peer = net.connect({ host, port: listening.port, localAddress: host });
      await patiently(once(peer, 'connect'), 'the peer of BIND');
      const accepted = await conversation.receive(reply);
      assert.deepEqual(idOf(accepted, 'second reply'), expected, 'the peer is who was expected: the same ID');
      assert.equal(accepted.port, peer.localPort, "BND.PORT is the peer's");
      peer.pipe(peer);
      await echoes(conversation, 'bound');
      peer.destroy();
      conversation.close();
    }
  },

  // SK-32, SK-35 to SK-38: ADR.PREF.
  async preferences(server) {
    const conversation = await Conversation.open(server);
    const both = addressOf('both.test');
    const known = idOf(await conversation.associate(both, { preference: ATYP.id }), 'ADR.PREF 8');
    for (const asked of [both, known]) {
      for (const host of LOOPBACKS) {
        const preference = familyOf(host);
        const answer = succeeded(await conversation.associate(asked, { preference }), `ADR.PREF ${preference}`);
        assert.deepEqual(answer.address, addressOf(host), `ADR.PREF ${preference} names the address`);
      }
    }
    for (const host of LOOPBACKS) {
      const address = addressOf(host);
      const named = succeeded(await conversation.associate(address, { preference: ATYP.name }), 'ADR.PREF 3');
      assert.deepEqual(named.address, addressOf(host === FOUR ? 'four.test' : 'six.test'), 'reverse DNS (SK-36)');
      const byId = idOf(await conversation.associate(address), 'its ID');
      const namedById = succeeded(await conversation.associate(byId, { preference: ATYP.name }), 'ADR.PREF 3 of an ID');
      assert.deepEqual(namedById.address, named.address, 'reverse DNS of an ID (SK-32)');
    }
    const flagged = await conversation.associate(both, { preference: ATYP.ipv4, flag: FLAG.preferDestination });
    succeeded(flagged, "FLAG X'10' with ADR.PREF 1");
    assert.deepEqual(flagged.address, addressOf(SIX), 'the FLAG overrides ADR.PREF (SK-38): IPv6 would be used');
    const upper = succeeded(await conversation.associate(both, { preference: 0x4201 }), 'reserved upper octet');
    assert.deepEqual(upper.address, addressOf(FOUR), 'the reserved upper octet is ignored');
    conversation.close();
  },

  // SK-37, SK-36, SK-25: what cannot be answered.
  async preferences_refused(server) {
    const wanted = [
      ['four.test', ATYP.ipv6, REP.addressTypeNotSupported],
      ['six.test', ATYP.ipv4, REP.addressTypeNotSupported],
      ['127.0.0.2', ATYP.name, REP.hostUnreachable],
      ['none.test', ATYP.ipv4, REP.hostUnreachable],
    ];
    for (const [name, preference, rep] of wanted) {
      const conversation = await Conversation.open(server);
      const answer = await conversation.associate(addressOf(name), { preference });
      assert.equal(answer.code, rep, `${name} with ADR.PREF ${preference}: REP ${answer.code}`);
      conversation.close();
    }
  },

  // SK-12, SK-18: IDs that stand for nothing.
  async unknown_ids(server) {
    const conversation = await Conversation.open(server);
    const known = idOf(await conversation.associate(addressOf(FOUR)), 'ASSOCIATE');
    conversation.close();
    const unknown = [id(known.realid, 1), id(known.realid ^ 1), id(0)];
    const { connect, bind: listen, addressAssociate, udpAssociate } = COMMAND;
    const commands = [connect, listen, addressAssociate, connect | AND_ASSOCIATE, udpAssociate | AND_ASSOCIATE];
    for (const address of unknown) {
      for (const command of commands) {
        const asked = { command, address, port: command === addressAssociate ? ATYP.ipv4 : 9 };
        const asking = await Conversation.open(server);
        const answer = await asking.ask(asked);
        assert.equal(answer.code, REP.invalidAddress, `an unknown ID in CMD ${command}: REP ${answer.code}`);
        asking.close();
      }
    }
  },

  // SK-15: an ID of another user of the same host is as unknown as one that nobody has.
  async ids_of_others(server) {
    const conversation = await Conversation.open(server);
    const known = idOf(await conversation.associate(addressOf(FOUR)), 'ASSOCIATE');
    const other = await Conversation.open({ ...server, ...server.other });
    await refused(other, { command: COMMAND.connect, address: known, port: 9 }, REP.invalidAddress, "another's ID");
    const answer = await conversation.associate(known, { preference: ATYP.ipv4 });
    assert.deepEqual(succeeded(answer, 'the owner').address, addressOf(FOUR), 'the owner is not disturbed');
    conversation.close();
  },

  // SK-27: what is no command.
  async unknown_commands(server) {
    for (const command of [0x00, 0x04, 0x07, 0x0c, 0x0f, 0x10, 0x18, 0x7f, 0x80, 0xff]) {
      const asked = { command, address: addressOf(FOUR), port: 9 };
      await refused(await Conversation.open(server), asked, REP.commandNotSupported, `CMD ${command}`);
    }
  },

  // SK-2, SK-3, SK-41, SK-42, SK-44, SK-7, SK-18, SK-6: UDP in every address type to both families.
  async udp(server) {
    const conversation = await Conversation.open(server);
    const ids = {};
    for (const host of LOOPBACKS) ids[host] = idOf(await conversation.associate(addressOf(host)), 'ASSOCIATE');
    const client = await Datagrams.open(server.host);
    const asked = { command: COMMAND.udpAssociate, address: addressOf(server.host), port: client.port };
    const answer = succeeded(await conversation.ask(asked), 'UDP ASSOCIATE');
    assert.equal(answer.address.type, familyOf(server.host), 'the relay can be reached by our family');
    const relay = { host: answer.address.value, port: answer.port };
    for (const host of LOOPBACKS) {
      // One destination for each way of naming it, since an answer's ATYP is the one used for that peer.
      const name = addressOf(host === FOUR ? 'four.test' : 'six.test');
      for (const address of [addressOf(host), name, ids[host]]) {
        const { port } = (await udpDestination(host)).address();
        const payload = Buffer.from(`to ${host}`);
        client.send(relay, { address, port, payload });
        const octets = await client.next();
        const found = decode(datagram, octets);
        assert.deepEqual(found.address, address, 'the peer is named as the client named it (SK-42)');
        assert.deepEqual([found.fragment, found.port], [0, port], 'FRAG, PORT');
        assert.equal(found.payload.toString(), `echo:to ${host}`);
        if (address.type === ATYP.id) assert.equal(octets.length - found.payload.length, 10, 'SK-41: 10 octets');
      }
    }
    const { port } = (await udpDestination(FOUR)).address();
    const payload = Buffer.from('lost');
    client.send(relay, { address: addressOf(FOUR), port, payload, fragment: 1 });
    client.send(relay, { address: id(ids[FOUR].realid ^ 1), port, payload });
    await client.silent('a fragment and an unknown ID');
    const stranger = await Datagrams.open(server.host);
    stranger.send(relay, { address: addressOf(FOUR), port, payload });
    await stranger.silent('another port of our host');
    await client.silent('and we hear nothing of it either');
    conversation.close();
    await pause(SILENCE);
    client.send(relay, { address: addressOf(FOUR), port, payload });
    await client.silent('the association ended with its connection (SK-6)');
  },

  // SK-30, SK-41, SK-42: X'0B'; the relay is where the TCP connection goes to, at BND.PORT.
  async combined_udp(server) {
    for (const host of LOOPBACKS) {
      for (const declared of [true, false]) {
        const destination = await udpDestination(host);
        const client = await Datagrams.open(server.host);
        const conversation = await Conversation.open(server);
        const command = COMMAND.udpAssociate | AND_ASSOCIATE;
        const answer = await conversation.ask({ command, address: addressOf(host), port: declared ? client.port : 0 });
        const address = idOf(answer, `X'0B' ${host}`);
        const relay = { host: conversation.socket.remoteAddress, port: answer.port };
        const { port } = destination.address();
        client.send(relay, { address, port, payload: Buffer.from('short') });
        const octets = await client.next();
        assert.equal(octets.length, 10 + 'echo:short'.length, 'the header has 10 octets');
        assert.deepEqual(decode(datagram, octets).address, address, 'and names the ID');
        conversation.close();
      }
    }
  },

  // SK-43: the control channel on the connection of an association.
  async control_channel(server) {
    const conversation = await Conversation.open(server);
    const ids = {};
    for (const host of LOOPBACKS) ids[host] = idOf(await conversation.associate(addressOf(host)), 'ASSOCIATE');
    const client = await Datagrams.open(server.host);
    const asked = {
      command: COMMAND.udpAssociate,
      address: addressOf(server.host),
      port: client.port,
      flag: FLAG.interfaceRequest,
    };
    const answer = succeeded(await conversation.ask(asked), "UDP ASSOCIATE with FLAG X'01'");
    const relay = { host: answer.address.value, port: answer.port };
    for (const host of LOOPBACKS) {
      const destination = await udpDestination(host);
      const { port } = destination.address();
      for (const address of [addressOf(host), ids[host]]) {
        const flag = FLAG.preferDestination;
        const told = succeeded(await conversation.interfaceData(address, port, { flag }), `INTERFACE DATA ${host}`);
        const near = succeeded(await conversation.interfaceData(address, port), `INTERFACE DATA ${host}, FLAG 0`);
        client.send(relay, { address, port, payload: Buffer.from('who') });
        await client.next();
        assert.deepEqual(told.address, destination.seen.address, "with FLAG X'10' the address that is used towards it");
        // Extension 3 is about all Replies, so without the FLAG this one has our family as well. (The
        // settled text, SK-43, could be read otherwise; the vectors settle it.)
        assert.equal(near.address.type, familyOf(server.host), 'else an address of our family');
        assert.deepEqual([told.port, near.port], Array(2).fill(destination.seen.port), 'and the port that it sees');
      }
    }
    const unknown = await conversation.interfaceData(addressOf(FOUR), 9, { subcommand: 0x7f });
    assert.equal(unknown.code, REP.commandNotSupported, 'an unknown SUB');
    const wrong = await conversation.interfaceData(id(ids[FOUR].realid, 1), 9);
    assert.equal(wrong.code, REP.invalidAddress, 'an ID of an unknown class');
    succeeded(await conversation.interfaceData(addressOf(FOUR), 9), 'the connection is kept');
    conversation.close();
  },
};

const FOR_USERS = ['wrong_password', 'ids_of_others'];

async function live({ open, guarded, cases: wanted }) {
  for (const name of wanted) {
    for (const server of FOR_USERS.includes(name) ? guarded : open) {
      let error = null;
      try {
        await cases[name](server);
      } catch (failure) {
        error = failure.stack;
      }
      console.log(JSON.stringify({ case: name, host: server.host, error }));
      for (const one of opened.splice(0)) one.close();
    }
  }
}

// ---- the vectors -------------------------------------------------------------------------------

const messages = {
  greeting,
  method_choice: methodChoice,
  credentials,
  credentials_answer: credentialsAnswer,
  request,
  reply,
  control_request: controlRequest,
  datagram,
};

const octetsOf = (hexadecimal) => Buffer.from(hexadecimal.replaceAll(' ', ''), 'hex');
const decoded = (fields) => ('payload' in fields ? { ...fields, payload: octetsOf(fields.payload) } : fields);
const NOISE = Buffer.alloc(600, 0x01);

// Its octets decode to its fields, its fields encode to its octets, and no shorter or longer octets do.
function checkMessage({ name, message, hex, fields }) {
  const [codec, octets, wanted] = [messages[message], octetsOf(hex), decoded(fields)];
  assert(codec, `${name}: there is no message "${message}"`);
  assert.deepEqual(decode(codec, octets), wanted, `${name}: decoded`);
  assert.equal(codec.write(wanted).toString('hex'), octets.toString('hex'), `${name}: encoded`);
  const ends = message === 'datagram'; // Its payload goes on to the end, however far that is.
  const header = octets.length - (ends ? wanted.payload.length : 0);
  for (let length = 0; length < header; length += 1) {
    assert.throws(() => decode(codec, octets.subarray(0, length)), Truncated, `${name}: ${length} octets of it`);
  }
  if (!ends) assert.throws(() => decode(codec, Buffer.concat([octets, NOISE])), Malformed, `${name}: and more`);
}

// It becomes no message, whatever follows; a datagram has an end, and may be too short.
function checkMalformed({ name, message, hex }) {
  const codec = messages[message];
  assert(codec, `${name}: there is no message "${message}"`);
  if (message === 'datagram') {
    assert.throws(() => decode(codec, octetsOf(hex)), name);
    return;
  }
  const octets = new Octets(Buffer.concat([octetsOf(hex), NOISE]));
  assert.throws(() => codec.read(octets), Malformed, name);
}

function vectors(path) {
  const file = JSON.parse(fs.readFileSync(path));
  assert(file.messages.length > 0 && file.malformed.length > 0, 'there are vectors');
  for (const vector of file.messages) checkMessage(vector);
  for (const vector of file.malformed) checkMalformed(vector);
  console.log(`${file.messages.length} messages, ${file.malformed.length} malformed`);
}

function read(path) {
  for (const { message, hex } of JSON.parse(fs.readFileSync(path))) {
    const octets = new Octets(octetsOf(hex));
    let found;
    try {
      const fields = messages[message].read(octets);
      if ('payload' in fields) fields.payload = fields.payload.toString('hex');
      found = { fields, taken: octets.at };
    } catch (error) {
      if (!(error instanceof Truncated || error instanceof Malformed)) throw error;
      found = { error: error instanceof Truncated ? 'missing' : 'malformed' };
    }
    console.log(JSON.stringify(found));
  }
}

// ---- start -------------------------------------------------------------------------------------

async function main([command, ...values]) {
  if (command === 'vectors') return vectors(values[0]);
  if (command === 'read') return read(values[0]);
  if (command === 'live') return live(JSON.parse(values[0]));
  if (command === 'cases') return console.log(Object.keys(cases).join('\n'));
  throw new Error('usage: second_client.js vectors FILE | read FILE | live JSON | cases');
}

main(process.argv.slice(2)).then(
  () => process.stdout.write('', () => process.exit(0)), // When all that was printed is out.
  (error) => {
    console.error(error.stack);
    process.exit(1);
  },
);
