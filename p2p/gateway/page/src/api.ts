/** The gateway, as the page asks it. Nothing else is ever asked. */
import { type Account, type Turn, messagesOf } from "./conversation.ts";
import type { Preferences } from "./preferences.ts";
import { type ErrorBody, type Problem, errorIn, problemOf } from "./problems.ts";
import { EventReader } from "./sse.ts";

/** What did not work, as it is shown. */
export class Failed extends Error {
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(problem.title);
    this.problem = problem;
  }
}

/** What the browser shows with each request, if anything: a key, or what Telegram signed. */
export interface Pass {
  scheme: "Bearer" | "tma";
  secret: string;
}

let pass: Pass | null = null;

export function usePass(given: Pass | null): void {
  pass = given;
}

/** The JSON at `path`. Raises `Failed`. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await call("GET", path, undefined, signal)).json()) as T;
}

/** The JSON that comes back. Raises `Failed`. */
export async function post<T>(path: string, body: unknown): Promise<T> {
  return (await (await call("POST", path, body)).json()) as T;
}

export type Heard = { text: string } | { account: Account } | { cut: boolean };

/** One answer, as it comes; to abort `signal` ends it, at the provider too. Raises `Failed`. */
export async function* ask(turns: Turn[], wanted: Preferences, signal: AbortSignal): AsyncGenerator<Heard> {
  const response = await call("POST", "v1/chat/completions", requestOf(turns, wanted), signal);
  const reader = new EventReader();
  let ended = false;
  for await (const text of piecesOf(response, signal)) {
    for (const event of reader.read(text)) {
      if (event === "[DONE]") ended = true;
      else yield* heardIn(JSON.parse(event) as Chunk);
    }
  }
  if (!ended) throw new Failed({ ...problemOf(0, null), title: "The answer broke off" });
}

interface Chunk {
  choices?: { delta: { content?: string | null }; finish_reason: string | null }[];
  bombyx?: Account;
  error?: ErrorBody;
}

function* heardIn(chunk: Chunk): Generator<Heard> {
  if (chunk.bombyx) yield { account: chunk.bombyx };
  const error = errorIn(chunk);
  if (error) throw new Failed(problemOf(502, error));
  const choice = chunk.choices?.[0];
  if (choice?.delta.content) yield { text: choice.delta.content };
  if (choice?.finish_reason) yield { cut: choice.finish_reason === "length" };
}

function requestOf(turns: Turn[], wanted: Preferences): unknown {
  return {
    model: wanted.model,
    messages: messagesOf(turns),
    max_tokens: wanted.maxTokens,
    stream: true,
    stream_options: { include_usage: true },
    ...(wanted.preset && { preset: wanted.preset }),
    ...(wanted.tier && { tier: wanted.tier }),
    ...(wanted.priceMaxNano !== null && { price_max_output: wanted.priceMaxNano }),
  };
}

async function* piecesOf(response: Response, signal: AbortSignal): AsyncGenerator<string> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let step = await reader.read(); !step.done; step = await reader.read()) yield step.value;
  } catch {
    signal.throwIfAborted();
    throw new Failed({ ...problemOf(0, null), title: "The answer broke off" });
  }
}

async function call(method: "GET" | "POST", path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {
    ...(body !== undefined && { "content-type": "application/json" }),
    ...(pass && { authorization: `${pass.scheme} ${pass.secret}` }),
  };
  const request: RequestInit = { method, headers, credentials: "omit", ...(signal && { signal }) };
  let response: Response;
  try {
    response = await fetch(path, body === undefined ? request : { ...request, body: JSON.stringify(body) });
  } catch {
    signal?.throwIfAborted();
    throw new Failed(problemOf(0, null));
  }
  if (response.ok) return response;
  const error = errorIn(await response.json().catch(() => null));
  throw new Failed(problemOf(response.status, error, Number(response.headers.get("retry-after")) || null));
}
