// Identities, signed objects (section 3) and claims on a channel (section 8).

import { createHash, createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { base58btc } from "multiformats/bases/base58";
import { BODIES } from "./messages.mjs";
import { Malformed, big, decode, encode } from "./msgpack.mjs";

const PEER_ID_HEAD = Buffer.from("002408011220", "hex");
// What DER has before an Ed25519 seed or public key (RFC 8410); node:crypto takes no raw ones.
const SEED_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");
const PUBLIC_HEAD = Buffer.from("302a300506032b6570032100", "hex");

export const VOUCHER = 0x564f5543n;
export const RELEASE = 0x52454c45n;

export const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();

/** An Ed25519 key from its 32-byte seed. */
export class Signer {
  #key;

  constructor(seed) {
    this.#key = createPrivateKey({ key: Buffer.concat([SEED_HEAD, seed]), format: "der", type: "pkcs8" });
    this.publicKey = createPublicKey(this.#key).export({ format: "der", type: "spki" }).subarray(PUBLIC_HEAD.length);
  }

  sign(message) {
    return sign(null, message, this.#key);
  }
}

/** Whether the holder of that 32-byte key signed the message. */
export function isSignedBy(publicKey, message, signature) {
  const key = createPublicKey({ key: Buffer.concat([PUBLIC_HEAD, publicKey]), format: "der", type: "spki" });
  return verify(null, message, key, signature);
}

export const peerIdOf = (publicKey) => base58btc.baseEncode(Buffer.concat([PEER_ID_HEAD, publicKey]));

/** The key within an Ed25519 peer id. Throws Malformed for any other. */
export function publicKeyOf(peer) {
  const bytes = Buffer.from(base58btc.baseDecode(peer));
  if (bytes.length !== PEER_ID_HEAD.length + 32 || bytes.indexOf(PEER_ID_HEAD) !== 0) throw new Malformed("a peer id");
  return bytes.subarray(PEER_ID_HEAD.length);
}

export function signBody(body, signer) {
  const encoded = encode(body);
  return { body: encoded, signature: signer.sign(encoded) };
}

export const idOf = (signed) => sha256(signed.body);

/** The body, if `by(body)` signed it for this network and purpose. The bytes are verified as they came. */
export function openSigned(signed, { domain, network, by }) {
  const body = BODIES[domain](decode(signed.body));
  if (body.network !== network) throw new Malformed("another network's");
  if (!isSignedBy(publicKeyOf(by(body)), signed.body, signed.signature)) throw new Malformed("a bad signature");
  return body;
}

/** The 48 bytes of a claim. */
export const claimBytes = (tag, globalId, channel, amount) =>
  Buffer.concat([big(tag, 4), big(globalId, 4), channel, big(amount, 8)]);

/** What is signed of a claim: the hash of its cell. */
export const claimHash = (...claim) => sha256(Buffer.of(0x00, 0x60), claimBytes(...claim));

/** What so many tokens cost; both are [input, cached input, output]. */
export function costNano(prices, tokens) {
  const sum = prices.reduce((total, price, kind) => total + price * tokens[kind], 0n);
  return (sum + 999_999n) / 1_000_000n;
}
