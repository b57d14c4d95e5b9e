/** What this browser remembers: how one likes to ask, and no conversation. A key is forgotten with the tab. */
export const PRESETS = ["", "balanced", "cheap", "fast", "private"] as const; // the first is the gateway's own
export const TIERS = ["", "open", "attested"] as const; // the first is that of the preset
export const THEMES = ["auto", "light", "dark"] as const;

export interface Preferences {
  model: string;
  preset: (typeof PRESETS)[number];
  tier: (typeof TIERS)[number];
  priceMaxNano: number | null; // for a million tokens of an answer
  maxTokens: number;
  theme: (typeof THEMES)[number];
}

export const MAX_TOKENS_LIMIT = 8192;
export const FIRST: Preferences = { model: "", preset: "", tier: "", priceMaxNano: null, maxTokens: 512, theme: "auto" };

/** What was kept, as far as it still makes sense; the rest is as on the first day. */
export function preferencesFrom(kept: string | null): Preferences {
  let given: Partial<Record<keyof Preferences, unknown>>;
  try {
    given = Object(JSON.parse(kept ?? "{}")) as typeof given;
  } catch {
    return FIRST;
  }
  const natural = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  return {
    model: typeof given.model === "string" ? given.model : FIRST.model,
    preset: PRESETS.find((one) => one === given.preset) ?? FIRST.preset,
    tier: TIERS.find((one) => one === given.tier) ?? FIRST.tier,
    priceMaxNano: natural(given.priceMaxNano) ? given.priceMaxNano : null,
    maxTokens: natural(given.maxTokens) && given.maxTokens > 0 ? Math.min(given.maxTokens, MAX_TOKENS_LIMIT) : FIRST.maxTokens,
    theme: THEMES.find((one) => one === given.theme) ?? FIRST.theme,
  };
}
