// The client's side of one paid answer (section 6 of docs/PROTOCOL.md).

import { createHash, randomBytes } from "node:crypto";
import { Malformed, encode } from "./wire/msgpack.mjs";
import * as signed from "./wire/signed.mjs";

const HEARTBEAT_MS = 5_000;
const COUNT_SLACK_TOKENS = 8n; // tokens whose last byte is still to come
const TOKEN_BYTES = 1024n;

// What may be heard in which state.
const HEARS = {
  begun: ["STARTING"],
  progress: ["PREFILL"],
  delta: ["STREAMING"],
  pause: ["PREFILL", "STREAMING"],
  finished: ["PREFILL", "STREAMING"],
  heartbeat: ["STARTING", "PREFILL", "STREAMING", "CLOSING"],
  end: ["CLOSING"],
};

const least = (...values) => values.reduce((a, b) => (a < b ? a : b));
const most = (...values) => values.reduce((a, b) => (a > b ? a : b));

/** Throws Malformed unless it holds. */
export function require(holds, why) {
  if (!holds) throw new Malformed(why);
}

/** The payer's word that the payee may have `amountNano` of the channel in all. */
export const signVoucher = (payer, network, channel, amountNano) =>
  payer.sign(signed.claimHash(signed.VOUCHER, network.globalId, channel, amountNano));

export class Session {
  #say;
  #hear;
  #quote; // {object, body}
  #channel; // {id, depositedNano, deliveredNano, authorisedNano}, kept up to date here
  #keys; // {identity, payer}, and of whom the provider's word is expected
  #network;
  #request;
  #cancelAfter; // tokens
  #onlyWhenAsked; // no voucher for the answer before the provider pauses
  #state = "STARTING";
  #id = randomBytes(16);
  #salt = randomBytes(16);
  #authorisedBeforeNano;
  #saidPaidNano = 0n;
  #dueNano = 0n;
  #promptTokens = 0n;
  #tokens = [0n, 0n, 0n]; // input, cached input, output
  #text = "";
  #textBytes = 0n;
  #hash = createHash("sha256");
  #saidAt = Date.now();
  #result = { payments: 0, pauses: 0, steps: 0, deltas: 0 };

  constructor({ say, hear, quote, channel, identity, payer, network, request, ...moods }) {
    this.#say = (message) => ((this.#saidAt = Date.now()), say(message));
    this.#hear = hear;
    this.#quote = quote;
    this.#channel = channel;
    this.#keys = { identity, payer };
    this.#network = network;
    this.#request = encode(request);
    this.#cancelAfter = moods.cancelAfter ?? Infinity;
    this.#onlyWhenAsked = moods.onlyWhenAsked ?? false;
    this.#authorisedBeforeNano = channel.authorisedNano;
  }

  /** Buy it: {text, tokens, receipt, shown, …}; `shown` is what others can verify. Throws what ends it early. */
  async run() {
    const beat = setInterval(() => {
      if (Date.now() - this.#saidAt >= HEARTBEAT_MS) this.#say({ type: "heartbeat" }).catch(() => {});
    }, 1000);
    try {
      await this.#say({
        type: "start",
        session: this.#id,
        quote: this.#quote.object,
        channel: this.#channel.id,
        request: this.#request,
        salt: this.#salt,
        payment: this.#payment(0n),
      });
      while (this.#state !== "DONE") {
        const message = await this.#hear();
        require(HEARS[message.type].includes(this.#state), `${message.type} while ${this.#state}`);
        await this.#on[message.type](message);
      }
      return { ...this.#result, text: this.#text, tokens: this.#tokens };
    } finally {
      clearInterval(beat);
    }
  }

  #on = {
    begun: async ({ prompt_tokens, delivered_nano }) => {
      require(prompt_tokens <= this.#quote.body.prompt_tokens, "more prompt tokens than the quote covers");
      this.#channel.deliveredNano = least(delivered_nano, this.#authorisedBeforeNano);
      this.#promptTokens = prompt_tokens;
      this.#state = "PREFILL";
      await this.#pay();
    },
    progress: async ({ progress }) => {
      const { session, prompt_tokens_done: done } = this.#open(progress, "bombyx/progress/1");
      require(session.equals(this.#id), "another session's progress");
      require(this.#tokens[0] < done && done <= this.#promptTokens, "progress that is none");
      this.#deliver([done, 0n, 0n]);
      this.#result.steps++;
      if (done === this.#promptTokens) this.#state = "STREAMING";
      await this.#pay();
    },
    delta: async ({ text, tokens, total_tokens }) => {
      const [input, cached, output] = this.#tokens;
      const bytes = this.#textBytes + BigInt(Buffer.byteLength(text));
      require(output + tokens === total_tokens, "counts that do not add up");
      require(total_tokens <= this.#quote.body.max_tokens, "more tokens than were asked for");
      require(total_tokens <= bytes + COUNT_SLACK_TOKENS, "more tokens than the text can hold");
      require(bytes <= (total_tokens + COUNT_SLACK_TOKENS) * TOKEN_BYTES, "too much text");
      this.#text += text;
      this.#textBytes = bytes;
      this.#hash.update(text);
      this.#deliver([input, cached, total_tokens]);
      this.#result.deltas++;
      if (output < this.#cancelAfter && total_tokens >= this.#cancelAfter) await this.#say({ type: "cancel" });
      const { deliveredNano, authorisedNano } = this.#channel;
      const owed = most(deliveredNano - authorisedNano, this.#costNano - this.#saidPaidNano);
      if (owed * 4n >= this.#quote.body.window_nano && !this.#onlyWhenAsked) await this.#pay();
    },
    pause: async ({ due_nano }) => {
      this.#dueNano = most(this.#dueNano, due_nano);
      this.#result.pauses++;
      await this.#pay();
    },
    finished: async ({ receipt }) => {
      const body = this.#open(receipt, "bombyx/receipt/1");
      this.#checkReceipt(body);
      this.#dueNano = most(this.#dueNano, body.channel_total_nano);
      this.#state = "CLOSING";
      const countersignature = this.#keys.identity.sign(receipt.body);
      Object.assign(this.#result, { receipt: body, shown: encode({ receipt, countersignature }) });
      await this.#say({ type: "close", countersignature, payment: this.#payment(0n) });
    },
    heartbeat: async () => {},
    end: async () => {
      this.#state = "DONE";
    },
  };

  #open(object, domain) {
    return signed.openSigned(object, { domain, network: this.#network.name, by: () => this.#quote.body.provider });
  }

  get #costNano() {
    return signed.costNano(this.#quote.body.prices, this.#tokens);
  }

  #deliver(tokens) {
    const before = this.#costNano;
    this.#tokens = tokens;
    this.#channel.deliveredNano += this.#costNano - before;
  }

  /** Pay for what was delivered and, during the prompt, for what comes next. */
  async #pay() {
    const rest = this.#state === "PREFILL" ? this.#promptTokens - this.#tokens[0] : 0n;
    this.#result.payments++;
    await this.#say(this.#payment(signed.costNano(this.#quote.body.prices, [rest, 0n, 0n])));
  }

  /** A voucher, of which `aheadNano` is for work to come. A client that has a disk writes it down before it is sent. */
  #payment(aheadNano) {
    const channel = this.#channel;
    const windowNano = this.#quote.body.window_nano;
    const ahead = least(aheadNano, windowNano);
    const asked = least(this.#dueNano, channel.deliveredNano + windowNano);
    channel.authorisedNano = most(channel.authorisedNano, channel.deliveredNano + ahead, asked);
    if (channel.authorisedNano > channel.depositedNano) throw new Error("the deposit is spent");
    this.#saidPaidNano = most(this.#saidPaidNano, this.#costNano + ahead);
    return {
      type: "payment",
      session_total_nano: this.#saidPaidNano,
      channel_total_nano: channel.authorisedNano,
      signature: signVoucher(this.#keys.payer, this.#network, channel.id, channel.authorisedNano),
    };
  }

  #checkReceipt(receipt) {
    const quote = this.#quote.body;
    const mine = {
      session: this.#id,
      quote_id: signed.idOf(this.#quote.object),
      client: quote.client,
      provider: quote.provider,
      model: quote.model,
      digest: quote.digest,
      request_hash: signed.sha256(this.#salt, this.#request),
      response_hash: this.#hash.digest(),
      tokens: this.#tokens,
      prices: quote.prices,
      session_total_nano: this.#costNano,
      channel: this.#channel.id,
      promised_ttft_ms: quote.ttft_ms,
      promised_tokens_per_s: quote.tokens_per_s,
    };
    for (const [name, value] of Object.entries(mine)) {
      require(encode(value).equals(encode(receipt[name])), `the receipt's ${name} differs from what arrived`);
    }
    require(receipt.reason !== "cancelled" || this.#tokens[2] >= this.#cancelAfter, "cancelled by nobody");
  }
}
