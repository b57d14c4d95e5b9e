// A js-libp2p peer that does as it is told, for the tests in Python: node peer.mjs SETTINGS
//
// SETTINGS is JSON, {seed, payerSeed, network, globalId, listen, server, swarmKey}. Orders come as lines of JSON on standard
// input, {id, order, …}; each is answered by a line {id, result} or {id, error}. Unasked it says {event, …}: `ready`,
// `identified` and `gossip`. All JSON is written as that of the golden vectors (wire/plain.mjs).

import { createInterface } from "node:readline";
import { multiaddr } from "@multiformats/multiaddr";
import { peerIdFromString } from "@libp2p/peer-id";
import { Buyer, openAdvert } from "./buyer.mjs";
import { recordKey, startNode } from "./node.mjs";
import { channelId } from "./wire/channel_id.mjs";
import { Messages } from "./wire/frames.mjs";
import { PROTOCOLS, read } from "./wire/messages.mjs";
import { decode, encode } from "./wire/msgpack.mjs";
import { parse, stringify } from "./wire/plain.mjs";
import { Signer, signBody } from "./wire/signed.mjs";

const ECHO = "/bombyx/echo/1"; // the tests' own

const settings = parse(process.argv[2]);
const node = await startNode(settings);
const network = { name: settings.network, globalId: settings.globalId };
const identity = new Signer(settings.seed);
const open = (peer, protocol) => node.dialProtocol(peerIdFromString(peer), protocol);
const buyer = new Buyer({ open, network, identity, payer: new Signer(settings.payerSeed) });

const tell = (record) => process.stdout.write(`${stringify(record)}\n`);

const orders = {
  dial: async ({ address }) => `${(await node.dial(multiaddr(address))).remotePeer}`,
  ping: async ({ peer }) => node.services.ping.ping(peerIdFromString(peer)),
  connections: async ({ peer }) => node.getConnections(peerIdFromString(peer)).map(({ direction }) => direction),
  echo: async ({ peer, bytes }) => echo(await open(peer, ECHO), bytes),

  provide: async ({ key }) => {
    for await (const event of node.services.dht.provide(await recordKey(key))) void event;
  },
  providers: async ({ key }) => {
    const found = {};
    for await (const event of node.services.dht.findProviders(await recordKey(key))) {
      if (event.name !== "PROVIDER") continue;
      for (const { id, multiaddrs } of event.providers) found[id] = multiaddrs.map(String);
    }
    return found;
  },
  table: async () => node.services.dht.routingTable.size,

  subscribe: async ({ topic }) => node.services.pubsub.subscribe(topic),
  subscribers: async ({ topic }) => node.services.pubsub.getSubscribers(topic).map(String),
  publish: async ({ topic, payload }) => (await node.services.pubsub.publish(topic, payload)).recipients.map(String),
  openAdvert: async ({ payload }) => openAdvert(decode(payload), network.name),
  offer: async ({ advert, keys, topic }) => offer(encode(signBody(advert, identity)), keys, topic),
  channelId: async ({ terms, code }) => channelId(terms, code),

  pull: async ({ peer }) => buyer.pull(peer),
  agree: async ({ peer, ...ask }) => buyer.agree(peer, ask),
  buy: async ({ peer, ...session }) => {
    const channel = { ...session.channel };
    return { ...(await buyer.buy(peer, { ...session, channel })), channel };
  },
  close: async ({ peer, channel, payeeKey }) => buyer.close(peer, channel, payeeKey),
};

/** Announce an advert as a provider does: to whoever pulls it, in the DHT, and by gossip. */
async function offer(advert, keys, topic) {
  await node.handle("/bombyx/advert/1", async (stream) => {
    const messages = new Messages(stream);
    read(await messages.receive(), PROTOCOLS["/bombyx/advert/1"].toProvider);
    await messages.send(advert);
    await messages.close();
  });
  for (const key of keys) await orders.provide({ key });
  await node.services.pubsub.publish(topic, advert);
}

/** Send all of it, and give back all that comes. */
async function echo(stream, bytes) {
  const send = async () => {
    for (let at = 0; at < bytes.length; at += 1 << 16) {
      if (!stream.send(bytes.subarray(at, at + (1 << 16)))) await stream.onDrain();
    }
    await stream.close();
  };
  const receive = async () => {
    const parts = [];
    for await (const part of stream) parts.push(part.subarray());
    return Buffer.concat(parts);
  };
  const [received] = await Promise.all([receive(), send()]);
  return received;
}

await node.handle(ECHO, async (stream) => {
  for await (const part of stream) {
    if (!stream.send(part)) await stream.onDrain();
  }
  await stream.close();
});

node.addEventListener("peer:identify", ({ detail }) => {
  const { peerId, agentVersion, protocols, listenAddrs } = detail;
  tell({ event: "identified", peer: `${peerId}`, agent: agentVersion, protocols, addresses: listenAddrs.map(String) });
});
node.services.pubsub.addEventListener("message", ({ detail: { topic, data, from } }) => {
  tell({ event: "gossip", topic, data: Buffer.from(data), from: `${from}` });
});
tell({ event: "ready", peer: `${node.peerId}`, addresses: node.getMultiaddrs().map(String) });

for await (const line of createInterface({ input: process.stdin })) {
  const { id, order, ...given } = parse(line);
  orders[order](given).then(
    (result) => tell({ id, result: result ?? null }),
    (error) => tell({ id, error: `${error.name}: ${error.message}` }),
  );
}
await node.stop();
