// The golden vectors (tests/vectors) against this implementation: node --test vectors.test.mjs

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { channelId } from "./wire/channel_id.mjs";
import { FrameReader, frame } from "./wire/frames.mjs";
import { BODIES, PROTOCOLS, read } from "./wire/messages.mjs";
import { Malformed, decode, encode } from "./wire/msgpack.mjs";
import { parse } from "./wire/plain.mjs";
import * as signed from "./wire/signed.mjs";

const load = (topic) => parse(readFileSync(new URL(`../vectors/${topic}.json`, import.meta.url), "utf8")).vectors;

const identities = load("identities");
const signers = {};
for (const [role, { seed }] of Object.entries(identities)) signers[role] = new signed.Signer(seed);
const objects = load("signed_objects");
const { network } = objects.advert.fields;

/** A decoded map has no prototype, and that is all in which it may differ. */
const same = (found, wanted) => assert.deepEqual(structuredClone(found), structuredClone(wanted));

/** What the message says must be in `fields`; what `fields` leaves out has its default. */
function readsAs(message, fields) {
  for (const [key, value] of Object.entries(fields)) same(message[key], value);
}

for (const [role, { public_key, peer_id }] of Object.entries(identities)) {
  test(`identity ${role}`, () => {
    same(signers[role].publicKey, public_key);
    assert.equal(signed.peerIdOf(public_key), peer_id);
    same(signed.publicKeyOf(peer_id), public_key);
  });
}

for (const [protocol, vectors] of Object.entries(load("frames"))) {
  for (const vector of vectors) {
    test(`frame ${protocol} ${vector.fields.type}`, () => {
      same(frame(encode(vector.fields)), vector.frame);
      const [payload, ...more] = new FrameReader().feed(vector.frame);
      assert.equal(more.length, 0);
      same(decode(payload), vector.fields);
      const readings = Object.values(PROTOCOLS[protocol]).flatMap((kinds) => {
        try {
          return [read(payload, kinds)];
        } catch {
          return []; // it is for the other direction
        }
      });
      assert.ok(readings.length);
      for (const message of readings) readsAs(message, vector.fields);
    });
  }
}

for (const [name, vector] of Object.entries(objects)) {
  test(`signed ${name}`, () => {
    const { domain } = vector.fields;
    const by = () => identities[vector.signer].peer_id;
    same(encode(vector.fields), vector.body);
    const made = signed.signBody(vector.fields, signers[vector.signer]);
    same(encode(made), vector.signed);
    same(signed.idOf(made), vector.id);
    readsAs(signed.openSigned(decode(vector.signed), { domain, network, by }), vector.fields);
    const forged = { ...made, body: encode({ ...vector.fields, network: "forged" }) };
    assert.throws(() => signed.openSigned(forged, { domain, network: "forged", by }), /a bad signature/);
    assert.throws(() => signed.openSigned(made, { domain, network: "forged", by }), /another network/);
  });
}

test("a countersigned receipt", () => {
  const { countersigned, countersignature, body, request, salt, response, fields } = objects.receipt;
  same(signers.client.sign(body), countersignature);
  same(decode(countersigned), { receipt: decode(objects.receipt.signed), countersignature });
  same(signed.sha256(salt, request), fields.request_hash);
  same(signed.sha256(response), fields.response_hash);
});

for (const { kind, signer, global_id, channel, amount_nano, bytes, hash, signature } of load("claims")) {
  test(`${kind} ${amount_nano}`, () => {
    const tag = { voucher: signed.VOUCHER, release: signed.RELEASE }[kind];
    same(signed.claimBytes(tag, global_id, channel, amount_nano), bytes);
    same(signed.claimHash(tag, global_id, channel, amount_nano), hash);
    same(signers[signer].sign(hash), signature);
    assert.ok(signed.isSignedBy(identities[signer].public_key, hash, signature));
  });
}

for (const { terms, code_hash, code_depth, channel } of load("channels")) {
  test("a channel's account id", () => same(channelId(terms, { hash: code_hash, depth: code_depth }), channel));
}

for (const { prices, tokens, cost_nano } of load("costs")) {
  test(`cost ${cost_nano}`, () => assert.equal(signed.costNano(prices, tokens), cost_nano));
}

const refused = load("refused");
for (const [why, bytes] of Object.entries(refused.frames)) {
  test(`refused: ${why}`, () => assert.throws(() => new FrameReader().feed(bytes), Malformed));
}
for (const [why, bytes] of Object.entries(refused.payloads)) {
  test(`refused: ${why}`, () => assert.throws(() => read(bytes, PROTOCOLS["/bombyx/session/1"].toClient), Malformed));
}

test("every signed body has a vector", () => {
  assert.deepEqual(Object.values(objects).map(({ fields }) => fields.domain).sort(), Object.keys(BODIES).sort());
});
