// The account id of a channel (section 8): the hash of the cells that it begins as.

import { sha256 } from "./signed.mjs";
import { big } from "./msgpack.mjs";

const bitsOf = (bytes) => [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
const uint = (value, bits) => value.toString(2).padStart(bits, "0");

/** A TON cell, of which only hash and depth matter: TON's whitepapers, "representation of a cell". */
function cell(bits, references = []) {
  const depth = references.length && 1 + Math.max(...references.map((each) => each.depth));
  const whole = bits.length % 8 === 0;
  const padded = whole ? bits : `${bits}1`.padEnd(Math.ceil((bits.length + 1) / 8) * 8, "0");
  const descriptors = Buffer.of(references.length, Math.floor(bits.length / 8) + Math.ceil(bits.length / 8));
  const data = Buffer.from(padded.match(/.{8}/g)?.map((byte) => parseInt(byte, 2)) ?? []);
  const depths = references.map((each) => big(BigInt(each.depth), 2));
  return { depth, hash: sha256(descriptors, data, ...depths, ...references.map((each) => each.hash)) };
}

/** An internal address without anycast: tag 10, no anycast, workchain, account id. */
function address(raw) {
  const [workchain, account] = raw.split(":");
  return `100${bitsOf(big(BigInt(workchain), 1))}${bitsOf(Buffer.from(account, "hex"))}`;
}

/** The 32-byte id of the channel with these terms. `code` has the hash and depth of the contract's code. */
export function channelId(terms, code) {
  const release = cell(bitsOf(terms.payee_key) + bitsOf(terms.salt));
  const parties = address(terms.payer) + address(terms.payee) + bitsOf(terms.payer_key);
  const times = uint(terms.challenge_period_s, 32) + uint(terms.open_before, 32);
  const data = cell("0000" + "0000" + uint(0n, 64), [cell(parties + times, [release])]); // no deposit, nothing settled
  return cell("00110", [{ hash: code.hash, depth: Number(code.depth) }, data]).hash; // only code and data are there
}
