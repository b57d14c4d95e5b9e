// How fast one stream of js-libp2p is, for tests/bench/bench_transport.py, whose protocols these are.
//
//     node rate.mjs serve                        prints where it listens, and serves until its input ends
//     node rate.mjs push ADDRESS BYTES PIECES    sends so many pieces of so many bytes, and prints the seconds it took

import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { tcp } from "@libp2p/tcp";
import { multiaddr } from "@multiformats/multiaddr";
import { createLibp2p } from "libp2p";

const SINK = "/bench/sink/1"; // the number of bytes in 8 bytes and the bytes; answered by one byte
const PING = "/bench/ping/1"; // one byte each way

const host = (listen) =>
  createLibp2p({
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
  });

async function serve() {
  const node = await host(["/ip4/127.0.0.1/tcp/0"]);
  await node.handle(SINK, async (stream) => {
    let left = null;
    for await (const chunk of stream) {
      if (left === null) left = 8 + Number(Buffer.from(chunk.subarray(0, 8)).readBigUInt64BE());
      left -= chunk.byteLength;
      if (!left) stream.send(Buffer.from("!"));
    }
    await stream.close();
  });
  await node.handle(PING, async (stream) => {
    for await (const chunk of stream) stream.send(chunk);
    await stream.close();
  });
  console.log(`${node.getMultiaddrs()[0]}`);
  process.stdin.resume().on("end", () => process.exit(0));
}

async function push(address, size, count) {
  const node = await host([]);
  const connection = await node.dial(multiaddr(address));
  const stream = await connection.newStream(SINK);
  const announced = Buffer.alloc(8);
  announced.writeBigUInt64BE(BigInt(size) * BigInt(count));
  stream.send(announced);
  const piece = Buffer.alloc(size);
  const startedAt = process.hrtime.bigint();
  for (let sent = 0; sent < count; sent++) {
    if (!stream.send(piece)) await stream.onDrain();
  }
  await stream[Symbol.asyncIterator]().next();
  console.log(Number(process.hrtime.bigint() - startedAt) / 1e9);
  process.exit(0);
}

const [, , what, address, size, count] = process.argv;
await (what === "serve" ? serve() : push(address, Number(size), Number(count)));
