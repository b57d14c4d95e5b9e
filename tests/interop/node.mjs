// A js-libp2p node that is a member of a Bombyx network: what sections 1 and 4 of docs/PROTOCOL.md ask for.

import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { generateKeyPairFromSeed } from "@libp2p/crypto/keys";
import { gossipsub } from "@libp2p/gossipsub";
import { identify } from "@libp2p/identify";
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht";
import { ping } from "@libp2p/ping";
import { preSharedKey } from "@libp2p/pnet";
import { tcp } from "@libp2p/tcp";
import { createLibp2p } from "libp2p";
import { CID } from "multiformats/cid";
import * as raw from "multiformats/codecs/raw";
import { sha256 } from "multiformats/hashes/sha2";

/** `listen` has multiaddrs; `server` is whether it keeps DHT records for others. `swarmKey` is a private network's file. */
export async function startNode({ seed, network, listen, server, swarmKey }) {
  return createLibp2p({
    privateKey: await generateKeyPairFromSeed("Ed25519", seed),
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    ...(swarmKey && { connectionProtector: preSharedKey({ psk: swarmKey }) }),
    services: {
      identify: identify(),
      ping: ping({ maxOutboundStreams: 2 }), // kad-dht pings by it too
      dht: kadDHT({
        protocol: `/bombyx/${network}/kad/1.0.0`,
        clientMode: !server,
        peerInfoMapper: passthroughMapper, // all peers of these tests are on the loopback
      }),
      pubsub: gossipsub({ globalSignaturePolicy: "StrictSign", allowPublishToZeroTopicPeers: true }),
    },
  });
}

/** The content id whose multihash is the key of a DHT record. */
export async function recordKey(text) {
  return CID.createV1(raw.code, await sha256.digest(new TextEncoder().encode(text)));
}
