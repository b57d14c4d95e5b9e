/** Where a link that a model wrote may lead; `null` for a script, a file, or anything else that is no address. */
export function safeHref(written: string): string | null {
  try {
    const address = new URL(written);
    return ["https:", "http:", "mailto:"].includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}
