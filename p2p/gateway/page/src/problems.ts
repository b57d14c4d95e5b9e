/** What went wrong, in words for the person who asked, and what can be done next. */
export interface Problem {
  title: string;
  why: string;
  next: string;
  place?: "settings"; // where that is done
}

/** An error as the gateway words it, after OpenAI's: `{"error": {message, type, param, code}}`. */
export interface ErrorBody {
  message: string;
  code: string | null;
}

/** The error in `body`, if there is one. */
export function errorIn(body: unknown): ErrorBody | null {
  const error = (body as { error?: Partial<ErrorBody> } | null)?.error;
  if (!error || typeof error.message !== "string") return null;
  return { message: error.message, code: typeof error.code === "string" ? error.code : null };
}

const LOST: Problem = {
  title: "The gateway does not answer",
  why: "Nothing came from the program that serves this page.",
  next: "See whether it still runs in its terminal, then ask again.",
};

const BY_STATUS: Record<number, Omit<Problem, "why">> = {
  400: { title: "The question cannot be asked like this", next: "Change what is named above, and ask again." },
  401: { title: "A key is needed", next: "Enter the key that whoever runs this gateway gave you.", place: "settings" },
  402: {
    title: "This would go over the budget",
    next: "Let answers be shorter in the settings, ask for a lower price, or have the budget raised where the gateway runs.",
    place: "settings",
  },
  403: { title: "This key may not do that", next: "Choose another model, or enter another key.", place: "settings" },
  404: { title: "Nobody offers this model", next: "Choose one that is on offer now." },
  429: { title: "Too many questions at once", next: "Wait a moment, then ask again." },
  503: { title: "No provider is free right now", next: "Ask again in a moment, or allow a higher price.", place: "settings" },
};

const BY_CODE: Record<string, Omit<Problem, "why">> = {
  price_cap: { title: "Nobody sells at this price", next: "Raise the price cap below the message, or ask again later." },
  context_length_exceeded: { title: "This is too long for the model", next: "Begin a new conversation, or let answers be shorter in the settings.", place: "settings" },
};

/** The problem behind an answer with this `status`; 0 where no answer came at all. */
export function problemOf(status: number, error: ErrorBody | null, retryAfterS: number | null = null): Problem {
  if (status === 0) return LOST;
  const known = BY_CODE[error?.code ?? ""] ?? BY_STATUS[status] ?? { title: "That did not work", next: "Ask again; what was delivered is paid, and no more." };
  const why = error?.message ?? `The gateway answered with status ${status}.`;
  const next = retryAfterS ? `Ask again in ${Math.ceil(retryAfterS)} s.` : known.next;
  return { ...known, why: `${why[0]?.toUpperCase() ?? ""}${why.slice(1)}`, next };
}
