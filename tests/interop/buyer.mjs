// A client (sections 4, 5, 6 and 8 of docs/PROTOCOL.md): pulls an advert, agrees on a price, buys answers, closes.

import { randomBytes } from "node:crypto";
import { Session, require, signVoucher } from "./session.mjs";
import { Messages } from "./wire/frames.mjs";
import { PROTOCOLS, read } from "./wire/messages.mjs";
import { encode } from "./wire/msgpack.mjs";
import * as signed from "./wire/signed.mjs";

const [ADVERT, NEGOTIATE, SESSION, CHANNEL] = Object.keys(PROTOCOLS);
const MAX_LIFETIME_S = 600n;
const CLOCK_TOLERANCE_S = 60n;

const nowS = () => BigInt(Math.floor(Date.now() / 1000));

/** A signed advert, if it is one: its own peer's, of this network, and current. */
export function openAdvert(object, network) {
  const advert = signed.openSigned(object, { domain: "bombyx/advert/1", network, by: (body) => body.peer });
  require(object.body.length <= 32_768 && advert.models.length <= 64 && advert.addresses.length <= 16, "too large");
  require(advert.issued_at <= nowS() + CLOCK_TOLERANCE_S, "issued in the future");
  require(nowS() < advert.expires_at && advert.expires_at - advert.issued_at <= MAX_LIFETIME_S, "a bad lifetime");
  require(new Set(advert.models.map(({ id }) => id)).size === advert.models.length, "the same model twice");
  return advert;
}

export class Buyer {
  #open;
  #network;
  #identity;
  #payer;

  /** `open(peer, protocol)` gives a stream, `network` is {name, globalId}, `identity` and `payer` are Signers. */
  constructor({ open, network, identity, payer }) {
    this.#open = open;
    this.#network = network;
    this.#identity = identity;
    this.#payer = payer;
    this.peer = signed.peerIdOf(identity.publicKey);
  }

  /** The provider's advert, from itself. */
  async pull(peer) {
    return this.#exchange(peer, ADVERT, async (say, hear) => {
      await say({ type: "pull" });
      const advert = openAdvert(await hear(), this.#network.name);
      require(advert.peer === peer, "it speaks for another peer");
      return advert;
    });
  }

  /** An accepted quote, {object, body}. `counter` has prices to haggle with, once. */
  async agree(peer, { model, promptTokens, maxTokens, counter }) {
    const payer_key = this.#payer.publicKey;
    const ask = { model, prompt_tokens: promptTokens, max_tokens: maxTokens, payer_key, nonce: randomBytes(16) };
    return this.#exchange(peer, NEGOTIATE, async (say, hear) => {
      await say({ type: "ask", ...ask });
      let offer = await hear("quote");
      if (counter && !offer.final) {
        await say({ type: "counter", prices: counter });
        offer = await hear("quote");
      }
      const body = this.#checkedQuote(offer.quote, peer, ask);
      const quote_id = signed.idOf(offer.quote);
      await say({ type: "accept", quote_id });
      require((await hear("accepted")).quote_id.equals(quote_id), "another quote was accepted");
      return { object: offer.quote, body };
    });
  }

  /** One answer under a quote, through a channel: see Session. */
  async buy(peer, session) {
    const mine = { identity: this.#identity, payer: this.#payer, network: this.#network };
    return this.#exchange(peer, SESSION, (say, hear) => new Session({ say, hear, ...session, ...mine }).run());
  }

  /** The provider's release of a channel, to be carried to the chain. */
  async close(peer, { id, authorisedNano }, payeeKey) {
    return this.#exchange(peer, CHANNEL, async (say, hear) => {
      const signature = signVoucher(this.#payer, this.#network, id, authorisedNano);
      await say({ type: "close_request", channel: id, amount_nano: authorisedNano, signature });
      const released = await hear("released");
      const isClaim = (tag, key, amount, signature) =>
        signed.isSignedBy(key, signed.claimHash(tag, this.#network.globalId, id, amount), signature);
      // A client that lost what it knew of the channel is shown its own highest voucher.
      const { amount_nano, voucher_nano, voucher_signature } = released;
      const forgot = isClaim(signed.VOUCHER, this.#payer.publicKey, voucher_nano, voucher_signature);
      require(amount_nano <= (forgot ? voucher_nano : authorisedNano), "more than was authorised");
      require(released.channel.equals(id), "a release of another channel");
      require(isClaim(signed.RELEASE, payeeKey, amount_nano, released.signature), "not signed by the payee");
      return released;
    });
  }

  /** `talk` on one stream. What it hears is one of `types` if there are any; a refusal is thrown. */
  async #exchange(peer, protocol, talk) {
    const messages = new Messages(await this.#open(peer, protocol));
    const hear = async (...types) => {
      const message = read(await messages.receive(), PROTOCOLS[protocol].toClient);
      if (message.type === "refusal") throw new Error(`refused: ${message.reason}: ${message.detail}`);
      require(!types.length || types.includes(message.type), `${message.type} out of turn`);
      return message;
    };
    try {
      const result = await talk((message) => messages.send(encode(message)), hear);
      await messages.close();
      return result;
    } catch (error) {
      messages.abort(error);
      throw error;
    }
  }

  #checkedQuote(object, peer, ask) {
    const quote = signed.openSigned(object, { domain: "bombyx/quote/1", network: this.#network.name, by: () => peer });
    require(quote.provider === peer && quote.client === this.peer && quote.model === ask.model, "for somebody else");
    require(quote.payer_key.equals(ask.payer_key) && quote.nonce.equals(ask.nonce), "an answer to another ask");
    require(quote.prompt_tokens >= ask.prompt_tokens && quote.max_tokens >= ask.max_tokens, "it covers less");
    require(!quote.free, "something that was not asked for as a gift");
    require(quote.tier === "open" && quote.valid_until > nowS(), "another tier, or expired");
    return quote;
  }
}
