import assert from "node:assert/strict";
import { test } from "node:test";

import { safeHref } from "../src/links.ts";
import { FIRST, preferencesFrom } from "../src/preferences.ts";
import { errorIn, problemOf } from "../src/problems.ts";
import { isDark, launchOf, themeOf } from "../src/telegram.ts";

test("links lead to pages and mail, and nowhere else", () => {
  assert.equal(safeHref("https://example.org/a?b"), "https://example.org/a?b");
  assert.equal(safeHref("mailto:a@example.org"), "mailto:a@example.org");
  for (const bad of ["javascript:alert(1)", " JaVaScRiPt:alert(1)", "data:text/html,x", "file:///etc/passwd", "/v1/models", "//x", "blob:x", ""])
    assert.equal(safeHref(bad), null, bad);
});

test("what a browser kept is taken as far as it makes sense", () => {
  for (const bad of [null, "", "{", "7", "null", "[]", '"x"']) assert.deepEqual(preferencesFrom(bad), FIRST);
  const kept = { ...FIRST, preset: "cheap", priceMaxNano: 5, theme: "dark" };
  assert.deepEqual(preferencesFrom(JSON.stringify(kept)), kept);
  const odd = { preset: "free", tier: 3, priceMaxNano: -1, maxTokens: 1e9, theme: null, model: {}, more: 1 };
  assert.deepEqual(preferencesFrom(JSON.stringify(odd)), { ...FIRST, maxTokens: 8192 });
});

test("every failure says what to do next, in the gateway's words where it has some", () => {
  for (const status of [0, 400, 401, 402, 403, 404, 418, 429, 500, 502, 503]) {
    const problem = problemOf(status, null);
    assert.ok(problem.title && problem.why && problem.next, `${status}`);
  }
  const error = errorIn({ error: { message: "it could cost too much", code: "insufficient_quota" } });
  assert.equal(problemOf(402, error).why, "It could cost too much");
  assert.match(problemOf(402, { message: "", code: "price_cap" }).next, /price cap/);
  assert.match(problemOf(503, error, 4.2).next, /in 5 s/);
  for (const none of [null, 3, "x", {}, { error: null }, { error: {} }, { error: { message: 1 } }]) assert.equal(errorIn(none), null);
});

test("of Telegram's colours only colours are taken", () => {
  assert.equal(launchOf("#chat"), null);
  const theme = { bg_color: "#17212b", text_color: "red; } body { display: none", link_color: "url(https://x)", other: "#000000" };
  const given = new URLSearchParams({ tgWebAppData: "user=x&hash=y", tgWebAppThemeParams: JSON.stringify(theme) });
  assert.deepEqual(launchOf(`#${given}`), { initData: "user=x&hash=y", theme: { "--ground": "#17212b" } });
  for (const bad of ["{", "null", "3"]) assert.deepEqual(themeOf(bad), {});
  assert.ok(isDark("#17212b") && !isDark("#ffffff"));
});
