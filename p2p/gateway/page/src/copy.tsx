import { useState } from "preact/hooks";

const SHOWN_MS = 1500;

/** Copies `text`; says so in its own place, which is as wide as before. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [said, say] = useState("Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("No access");
    }
    setTimeout(() => say("Copy"), SHOWN_MS);
  }
  return (
    <button type="button" class="quiet copy" aria-label={`Copy ${what}`} onClick={copy}>
      <span aria-live="polite">{said}</span>
    </button>
  );
}
