/** Amounts are whole numbers of nano, 10^9 to one GRAM; prices are nano for a million tokens. */
const NANO = 1_000_000_000;

/** `1234567890` → `1.23456789`, exactly: no digit is rounded away, and none is made up. */
export function gram(nano: number): string {
  const sign = nano < 0 ? "−" : "";
  const whole = Math.floor(Math.abs(nano) / NANO);
  const part = String(Math.abs(nano) % NANO).padStart(9, "0").replace(/0+$/, "");
  return sign + whole.toLocaleString("en") + (part && `.${part}`);
}

/** Such an amount with its unit. */
export function amount(nano: number): string {
  return `${gram(nano)} GRAM`;
}

/** What somebody typed as GRAM, in nano; `null` for nothing, and `undefined` for what is no such amount. */
export function nanoOf(typed: string): number | null | undefined {
  const text = typed.trim();
  if (text === "") return null;
  const found = /^(\d{0,6})(?:[.,](\d{0,9}))?$/.exec(text);
  if (!found || !/\d/.test(text)) return undefined;
  return Number(found[1] || "0") * NANO + Number((found[2] ?? "").padEnd(9, "0"));
}
