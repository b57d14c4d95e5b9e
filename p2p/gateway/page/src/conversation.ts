/** What is said between a person and the network, as it comes in: pure, so that every turn can be tried without one. */
import type { Problem } from "./problems.ts";

/** One thing that was looked into, or not; never a verdict on the whole. */
export interface Check {
  what: string;
  result: "passed" | "failed" | "not_checked";
  detail: string;
}

/** One provider's share of an answer. Amounts are nano, prices nano for a million tokens. */
export interface Part {
  provider: string;
  price: { input: number; output: number };
  prompt_tokens: number;
  completion_tokens: number;
  cost_nano: number;
  receipt: string | null;
  checks: Check[];
}

/** The `bombyx` object of a body or an event, as far as it is known by then. */
export interface Account {
  provider: string;
  tier: string;
  price: { input: number; output: number };
  free: boolean;
  cost_nano: number;
  failovers: number;
  why: string;
  ttft_ms: number;
  tokens_per_s: number;
  parts: Part[];
}

export interface Question {
  who: "user";
  id: number;
  text: string;
}

export interface Answer {
  who: "assistant";
  id: number;
  text: string;
  state: "waiting" | "growing" | "whole" | "cut" | "stopped" | "failed"; // `cut` at the most tokens that were allowed
  account: Account | null;
  handovers: string[]; // what is to be said of each change of provider
  problem: Problem | null;
}

export type Turn = Question | Answer;

export type News =
  | { news: "asked"; text: string }
  | { news: "piece"; text: string }
  | { news: "account"; account: Account }
  | { news: "over"; cut: boolean }
  | { news: "stopped" }
  | { news: "failed"; problem: Problem }
  | { news: "again" }
  | { news: "cleared" };

/** The conversation after some news of its last answer. */
export function heard(turns: Turn[], news: News): Turn[] {
  switch (news.news) {
    case "asked":
      return [...turns, { who: "user", id: turns.length, text: news.text }, waiting(turns.length + 1)];
    case "again": // the same question once more: what failed is taken back
      return [...turns.slice(0, -1), waiting(turns.length - 1)];
    case "cleared":
      return [];
  }
  const last = turns.at(-1);
  if (last?.who !== "assistant" || !isOpen(last)) return turns;
  return [...turns.slice(0, -1), grown(last, news)];
}

/** Whether more may come. */
export function isOpen(turn: Turn | undefined): boolean {
  return turn?.who === "assistant" && (turn.state === "waiting" || turn.state === "growing");
}

/** The messages of a request: all that was said, without answers in which nothing was. */
export function messagesOf(turns: Turn[]): { role: "user" | "assistant"; content: string }[] {
  return turns.filter((turn) => turn.text !== "").map((turn) => ({ role: turn.who, content: turn.text }));
}

/** The end of a peer's id, by which people tell peers apart. */
export function short(peer: string): string {
  return `…${peer.slice(-6)}`;
}

function waiting(id: number): Answer {
  return { who: "assistant", id, text: "", state: "waiting", account: null, handovers: [], problem: null };
}

function grown(answer: Answer, news: Exclude<News, { news: "asked" | "again" | "cleared" }>): Answer {
  switch (news.news) {
    case "piece":
      return { ...answer, state: "growing", text: answer.text + news.text };
    case "account":
      return { ...answer, account: news.account, handovers: handoversIn(news.account) };
    case "over":
      return { ...answer, state: news.cut ? "cut" : "whole" };
    case "stopped":
      return { ...answer, state: "stopped" };
    case "failed":
      return { ...answer, state: "failed", problem: news.problem };
  }
}

function handoversIn({ parts }: Account): string[] {
  return parts.flatMap(({ provider, completion_tokens }, at) => {
    const next = parts[at + 1];
    if (!next || next.provider === provider) return [];
    const when = completion_tokens > 0 ? `after ${completion_tokens} tokens` : "before its first word";
    return [`${short(provider)} failed ${when}; ${short(next.provider)} goes on from there.`];
  });
}
