// JSON as the golden vectors have it: a string that begins with 0x is bytes, and a number without a point an integer.

const INTEGER = /^-?\d+$/;

const revive = (_key, value, { source }) => {
  if (typeof value === "number" && INTEGER.test(source)) return BigInt(source);
  return typeof value === "string" && /^0x([0-9a-f]{2})*$/.test(value) ? Buffer.from(value.slice(2), "hex") : value;
};

function replace(key, value) {
  const given = this[key]; // before a Buffer makes its own JSON
  if (typeof given === "bigint") return JSON.rawJSON(`${given}`);
  return given instanceof Uint8Array ? `0x${Buffer.from(given).toString("hex")}` : value;
}

export const parse = (text) => JSON.parse(text, revive);
export const stringify = (value) => JSON.stringify(value, replace);
