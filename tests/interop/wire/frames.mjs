// Frames on a stream (section 2): an unsigned-varint length and that many bytes.

import { Malformed } from "./msgpack.mjs";

const MAX_FRAME_BYTES = 1 << 20;
const MAX_LENGTH_BYTES = 3;
const SILENCE_MS = 20_000;

/** `payload` with its length before it. */
export function frame(payload) {
  const length = [];
  for (let rest = payload.length; ; rest >>= 7) {
    length.push(rest > 0x7f ? (rest & 0x7f) | 0x80 : rest);
    if (rest <= 0x7f) return Buffer.concat([Buffer.from(length), payload]);
  }
}

/** Cuts bytes, as they come, into payloads. `feed` throws Malformed. */
export class FrameReader {
  #buffer = Buffer.alloc(0);

  feed(bytes) {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    const payloads = [];
    for (let found = this.#first(); found; found = this.#first()) {
      payloads.push(found);
    }
    return payloads;
  }

  #first() {
    let length = 0;
    for (let index = 0; index < Math.min(MAX_LENGTH_BYTES, this.#buffer.length); index++) {
      const byte = this.#buffer[index];
      length |= (byte & 0x7f) << (7 * index);
      if (byte & 0x80) continue;
      if (index && !byte) throw new Malformed("a length with needless bytes");
      if (length > MAX_FRAME_BYTES) throw new Malformed("a frame over the limit");
      return this.#cut(index + 1, index + 1 + length);
    }
    if (this.#buffer.length >= MAX_LENGTH_BYTES) throw new Malformed("a length that does not end");
    return null;
  }

  #cut(begin, end) {
    if (end > this.#buffer.length) return null;
    const payload = this.#buffer.subarray(begin, end);
    this.#buffer = this.#buffer.subarray(end);
    return payload;
  }
}

/** Payloads over a libp2p stream. */
export class Messages {
  #stream;
  #chunks;
  #frames = new FrameReader();
  #payloads = [];

  constructor(stream) {
    this.#stream = stream;
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async send(payload) {
    if (!this.#stream.send(frame(payload))) await this.#stream.onDrain();
  }

  /** The next payload. Throws when the stream ends instead, since a killed peer looks like one that closed. */
  async receive() {
    while (!this.#payloads.length) {
      const { value, done } = await heard(this.#chunks.next());
      if (done) throw new Error("the stream ended before its last message");
      this.#payloads.push(...this.#frames.feed(value.subarray()));
    }
    return this.#payloads.shift();
  }

  async close() {
    await this.#stream.close();
  }

  abort(error) {
    this.#stream.abort(error);
  }
}

/** What `chunk` promises, unless the other side stays silent for too long. */
async function heard(chunk) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the other side fell silent")), SILENCE_MS);
  });
  try {
    return await Promise.race([chunk, silence]);
  } finally {
    clearTimeout(timer);
  }
}
