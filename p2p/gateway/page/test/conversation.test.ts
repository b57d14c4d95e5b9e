import assert from "node:assert/strict";
import { test } from "node:test";

import { type Account, type News, type Turn, heard, isOpen, messagesOf } from "../src/conversation.ts";

const part = (provider: string, completion_tokens: number) => ({
  provider, completion_tokens, price: { input: 1, output: 2 }, prompt_tokens: 3, cost_nano: 4, receipt: null, checks: [],
});
const account = (...parts: ReturnType<typeof part>[]): Account => ({
  provider: "", tier: "open", price: { input: 1, output: 2 }, free: false, cost_nano: 4, failovers: parts.length - 1,
  why: "", ttft_ms: 0, tokens_per_s: 0, parts,
});
const after = (...news: News[]): Turn[] => news.reduce(heard, [] as Turn[]);
const last = (turns: Turn[]) => {
  const turn = turns.at(-1);
  assert.ok(turn?.who === "assistant");
  return turn;
};

test("an answer grows until it is over, and then stays", () => {
  const growing = after({ news: "asked", text: "why" }, { news: "piece", text: "be" }, { news: "piece", text: "cause" });
  assert.ok(isOpen(growing.at(-1)));
  const whole = heard(growing, { news: "over", cut: false });
  assert.deepEqual([last(whole).text, last(whole).state], ["because", "whole"]);
  assert.equal(heard(whole, { news: "piece", text: "late" }), whole);
  assert.equal(heard(whole, { news: "stopped" }), whole);
  assert.equal(last(heard(growing, { news: "over", cut: true })).state, "cut");
});

test("each change of provider is told, with how far the one before came", () => {
  const turns = after(
    { news: "asked", text: "why" },
    { news: "account", account: account(part("peerAAAAAA", 0), part("peerBBBBBB", 7), part("peerBBBBBB", 2), part("peerCCCCCC", 0)) },
  );
  assert.deepEqual(last(turns).handovers, [
    "…AAAAAA failed before its first word; …BBBBBB goes on from there.",
    "…BBBBBB failed after 2 tokens; …CCCCCC goes on from there.",
  ]);
});

test("what failed can be asked again, and is no part of what is asked", () => {
  const problem = { title: "", why: "", next: "" };
  const failed = after({ news: "asked", text: "why" }, { news: "failed", problem });
  assert.deepEqual(messagesOf(failed), [{ role: "user", content: "why" }]);
  const again = heard(failed, { news: "again" });
  assert.deepEqual([again.length, last(again).state, last(again).problem], [2, "waiting", null]);
  assert.deepEqual(after({ news: "asked", text: "why" }, { news: "cleared" }), []);
});
