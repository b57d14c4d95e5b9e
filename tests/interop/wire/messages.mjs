// Every message and signed body of docs/PROTOCOL.md, field by field. A check takes a decoded value and gives back what
// is to be used of it: fields that a newer version added are gone, those left out have their defaults.

import { Malformed, decode } from "./msgpack.mjs";

const STEERS = /[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/; // a terminal, or the direction of a line
const ABSENT = Symbol("a field that must be there");

const check = (test) => (value) => {
  if (!test(value)) throw new Malformed("a value of another type or out of its bounds");
  return value;
};
const integer = (least, most) => check((value) => typeof value === "bigint" && least <= value && value <= most);
const float = (least, most) => (value) => {
  const number = typeof value === "bigint" ? Number(value) : value; // an integer may stand for a float
  return check((one) => typeof one === "number" && least <= one && one <= most)(number);
};
const bytes = (least, most) =>
  check((value) => Buffer.isBuffer(value) && least <= value.length && value.length <= most);
const exactly = (size) => bytes(size, size);
const string = (most) => check((value) => typeof value === "string" && [...value].length <= most);
const text = (most) => (value) => check((one) => !STEERS.test(one))(string(most)(value));
const oneOf = (...values) => check((value) => values.includes(value));
const list = (item) => (value) => check(Array.isArray)(value).map(item);
const tuple = (item, size) => (value) => check((one) => one.length === size)(list(item)(value)).slice();
const optional = (inner, byDefault) => Object.assign((value) => inner(value), { byDefault });
const orNil = (inner) => optional((value) => (value === null ? null : inner(value)), null);

/** A map with these fields and perhaps others. */
const struct = (fields) => (value) => {
  check((one) => one !== null && typeof one === "object" && Object.getPrototypeOf(one) === null)(value);
  const found = {};
  for (const [name, inner] of Object.entries(fields)) {
    const given = name in value ? inner(value[name]) : "byDefault" in inner ? inner.byDefault : ABSENT;
    if (given === ABSENT) throw new Malformed(`${name} is missing`);
    found[name] = given;
  }
  return found;
};

/** One of several structs, told apart by `type`. */
const union = (kinds) => {
  const entries = Object.entries(kinds).map(([type, fields]) => [type, struct({ type: oneOf(type), ...fields })]);
  const structs = new Map(entries);
  return (value) => {
    const found = structs.get(value?.type);
    if (!found) throw new Malformed("an unknown type");
    return found(value);
  };
};

const name = text(256);
const nat = integer(0n, 2n ** 63n - 1n);
const size = integer(1n, 2n ** 31n - 1n);
const prices = tuple(integer(0n, 2n ** 53n - 1n), 3);
const tier = optional(oneOf("attested", "open"), "open");
const boolean = optional(oneOf(true, false), false);
const signed = struct({ body: bytes(0, 2 ** 20), signature: exactly(64) });
const voucher = { session_total_nano: nat, channel_total_nano: nat, signature: exactly(64) };
const payment = struct({ type: oneOf("payment"), ...voucher });
const channel = struct({ payee: name, payee_key: exactly(32), deposit_min_nano: nat, challenge_period_s: nat });
const seed = integer(-(2n ** 63n), 2n ** 63n - 1n);
const sampling = struct({ max_tokens: size, temperature: float(0, 1e6), top_p: float(0, 1), seed });
const model = struct({
  id: name, family: name, quantisation: name, digest: name, context: size, prices, ttft_ms: nat, tokens_per_s: nat,
  slots_free: nat, slots_total: nat, features: optional(list(name), []),
}); // prettier-ignore

const wanted = struct({
  model: optional(name, ""), family: optional(name, ""), per_day: size, input_tokens: size, output_tokens: size,
  prices_max: orNil(prices), tier, until: nat,
}); // prettier-ignore

const refusal = { reason: name, detail: optional(text(1024), ""), prices: orNil(prices), retry_after_s: orNil(nat) };

/** What may be said by whom, under each protocol id. */
export const PROTOCOLS = {
  "/bombyx/advert/1": { toProvider: union({ pull: {} }), toClient: signed },
  "/bombyx/negotiate/1": {
    toProvider: union({
      ask: {
        model: name, prompt_tokens: size, max_tokens: size, payer_key: exactly(32), nonce: bytes(8, 64), tier,
        uses: optional(size, 1n), until: optional(nat, 0n), free: boolean,
      }, // prettier-ignore
      counter: { prices },
      accept: { quote_id: exactly(32) },
      give_back: { quote_id: exactly(32) },
    }),
    toClient: union({
      quote: { quote: signed, final: boolean },
      accepted: { quote_id: exactly(32), hold_until: nat },
      refusal,
    }),
  },
  "/bombyx/session/1": {
    toProvider: union({
      start: {
        session: exactly(16), quote: signed, channel: exactly(32), request: bytes(0, 2 ** 20), salt: exactly(16), payment,
      },
      payment: voucher,
      cancel: {},
      close: { countersignature: exactly(64), payment },
      heartbeat: {},
    }),
    toClient: union({
      begun: { prompt_tokens: size, delivered_nano: nat, accepted_nano: nat },
      progress: { progress: signed },
      delta: { text: string(2 ** 20), tokens: nat, total_tokens: nat },
      pause: { due_nano: nat },
      finished: { receipt: signed },
      refusal,
      heartbeat: {},
      end: {},
    }),
  },
  "/bombyx/channel/1": {
    toProvider: union({ close_request: { channel: exactly(32), amount_nano: nat, signature: bytes(0, 64) } }),
    toClient: union({
      released: {
        channel: exactly(32), amount_nano: nat, signature: exactly(64), voucher_nano: optional(nat, 0n),
        voucher_signature: optional(bytes(0, 64), Buffer.alloc(0)),
      },
      refusal,
    }),
  },
  "/bombyx/interest/1": { toProvider: union({}), toClient: signed },
}; // prettier-ignore

/** What is signed, by its domain. */
export const BODIES = {
  "bombyx/advert/1": struct({
    domain: oneOf("bombyx/advert/1"), network: name, peer: name, addresses: list(name), seq: nat, issued_at: nat,
    expires_at: nat, models: list(model), channel, tier, free_tokens: optional(nat, 0n),
  }),
  "bombyx/quote/1": struct({
    domain: oneOf("bombyx/quote/1"), network: name, provider: name, client: name, payer_key: exactly(32), model: name,
    digest: name, prompt_tokens: size, max_tokens: size, prices, window_nano: integer(1n, 2n ** 63n - 1n), ttft_ms: nat,
    tokens_per_s: nat, channel, uses: size, issued_at: nat, valid_until: nat, nonce: bytes(8, 64), tier,
    free: boolean,
  }),
  "bombyx/demand/1": struct({
    domain: oneOf("bombyx/demand/1"), network: name, client: name, addresses: list(name), family: name, seq: nat,
    issued_at: nat, expires_at: nat, wanted,
  }),
  "bombyx/progress/1": struct({
    domain: oneOf("bombyx/progress/1"), network: name, session: exactly(16), prompt_tokens_done: size,
  }),
  "bombyx/receipt/1": struct({
    domain: oneOf("bombyx/receipt/1"), network: name, session: exactly(16), quote_id: exactly(32), client: name,
    provider: name, model: name, digest: name, request_hash: exactly(32), response_hash: exactly(32), sampling,
    tokens: tuple(nat, 3), reason: oneOf("cancelled", "failed", "length", "stop"), prices, session_total_nano: nat,
    channel: exactly(32), channel_total_nano: nat, finished_at: nat, ttft_ms: nat, duration_ms: nat,
    promised_ttft_ms: nat, promised_tokens_per_s: nat,
  }),
}; // prettier-ignore

/** A payload as one of the messages that `kinds` (of PROTOCOLS) allows. Throws Malformed. */
export const read = (payload, kinds) => kinds(decode(payload));
