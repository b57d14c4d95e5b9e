// MessagePack as section 2 of docs/PROTOCOL.md has it. Libraries take what must be refused here (a key twice, text that
// is not UTF-8) and make one type of what are two: here an integer is a BigInt, a float a Number, and bytes a Buffer.

const MAX_DEPTH = 8;
const MAX_ITEMS = 4096;
const MAX_CONTAINERS = 4096;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// [least, most, code, bytes that follow it]; the first that fits is the shortest.
const INTEGERS = [
  [0n, 0x7fn, null, 1], [-32n, -1n, null, 1],
  [0n, 0xffn, 0xcc, 1], [0n, 0xffffn, 0xcd, 2], [0n, 0xffffffffn, 0xce, 4], [0n, 2n ** 64n - 1n, 0xcf, 8],
  [-128n, -1n, 0xd0, 1], [-32768n, -1n, 0xd1, 2], [-(2n ** 31n), -1n, 0xd2, 4], [-(2n ** 63n), -1n, 0xd3, 8],
]; // prettier-ignore

/** What a peer sent is not what the protocol allows. */
export class Malformed extends Error {}

export function encode(value) {
  const parts = [];
  write(value, parts);
  return Buffer.concat(parts);
}

/** One value and nothing after it. Throws Malformed. */
export function decode(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(MAX_DEPTH);
  if (reader.left) throw new Malformed("trailing bytes");
  return value;
}

function write(value, parts) {
  if (value === null) parts.push(Buffer.of(0xc0));
  else if (typeof value === "boolean") parts.push(Buffer.of(value ? 0xc3 : 0xc2));
  else if (typeof value === "bigint") parts.push(integer(value));
  else if (typeof value === "number") parts.push(Buffer.of(0xcb), float(value));
  else if (typeof value === "string") parts.push(head(Buffer.byteLength(value), 0xa0, 31, 0xd9, 1), Buffer.from(value));
  else if (value instanceof Uint8Array) parts.push(head(value.length, 0, -1, 0xc4, 1), value);
  else if (Array.isArray(value)) {
    parts.push(head(value.length, 0x90, 15, 0xdc, 2));
    for (const item of value) write(item, parts);
  } else {
    const pairs = Object.entries(value);
    parts.push(head(pairs.length, 0x80, 15, 0xde, 2));
    for (const part of pairs.flat()) write(part, parts);
  }
}

function integer(value) {
  const [, , code, size] = INTEGERS.find(([least, most]) => least <= value && value <= most);
  return Buffer.concat([Buffer.from(code === null ? [] : [code]), big(value, size)]);
}

/** `value` in so many bytes, big-endian; a negative one in two's complement. */
export function big(value, size) {
  return Buffer.from(BigInt.asUintN(8 * size, value).toString(16).padStart(2 * size, "0"), "hex");
}

function float(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return bytes;
}

/** A length within its code up to `most`, else after `code`, the first of those for 1, 2 and 4 (or 2 and 4) bytes. */
function head(length, short, most, code, size) {
  if (length <= most) return Buffer.of(short | length);
  return length < 256 ** size
    ? Buffer.concat([Buffer.of(code), big(BigInt(length), size)])
    : head(length, 0, -1, code + 1, size * 2);
}

class Reader {
  #bytes;
  #at = 0;
  #containers = MAX_CONTAINERS;

  constructor(bytes) {
    this.#bytes = Buffer.from(bytes);
  }

  get left() {
    return this.#bytes.length - this.#at;
  }

  value(depth) {
    const code = this.#take(1)[0];
    if (code < 0x80) return BigInt(code);
    if (code >= 0xe0) return BigInt(code - 256);
    if (code < 0x90) return this.#map(code & 0x0f, depth);
    if (code < 0xa0) return this.#array(code & 0x0f, depth);
    if (code < 0xc0) return this.#text(code & 0x1f);
    if (code === 0xc0) return null;
    if (code === 0xc2 || code === 0xc3) return code === 0xc3;
    if (code >= 0xc4 && code <= 0xc6) return this.#take(this.#size(1 << (code - 0xc4)));
    if (code === 0xca) return this.#take(4).readFloatBE();
    if (code === 0xcb) return this.#take(8).readDoubleBE();
    if (code >= 0xcc && code <= 0xcf) return this.#unsigned(1 << (code - 0xcc));
    if (code >= 0xd0 && code <= 0xd3) return this.#signed(1 << (code - 0xd0));
    if (code >= 0xd9 && code <= 0xdb) return this.#text(this.#size(1 << (code - 0xd9)));
    if (code === 0xdc || code === 0xdd) return this.#array(this.#size(2 << (code - 0xdc)), depth);
    if (code === 0xde || code === 0xdf) return this.#map(this.#size(2 << (code - 0xde)), depth);
    throw new Malformed("an extension type");
  }

  #map(length, depth) {
    this.#enter(length, depth);
    const found = Object.create(null); // a key may be any text, also one that plain objects inherit
    for (let each = 0; each < length; each++) {
      const key = this.value(depth - 1);
      if (typeof key !== "string") throw new Malformed("a key that is not a string");
      if (key in found) throw new Malformed("the same key twice");
      found[key] = this.value(depth - 1);
    }
    return found;
  }

  #array(length, depth) {
    this.#enter(length, depth);
    return Array.from({ length }, () => this.value(depth - 1));
  }

  #enter(length, depth) {
    if (depth === 0 || length > MAX_ITEMS || this.#containers-- === 0) throw new Malformed("too deep or too many");
  }

  #text(length) {
    try {
      return utf8.decode(this.#take(length));
    } catch (error) {
      throw error instanceof Malformed ? error : new Malformed("not UTF-8");
    }
  }

  #unsigned(size) {
    return BigInt(`0x${this.#take(size).toString("hex")}`);
  }

  #signed(size) {
    return BigInt.asIntN(8 * size, this.#unsigned(size));
  }

  #size(size) {
    return Number(this.#unsigned(size));
  }

  #take(count) {
    if (count > this.left) throw new Malformed("it ends too early");
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }
}
