import assert from "node:assert/strict";
import { test } from "node:test";

import { axisOf } from "../src/axis.ts";
import { gram, nanoOf } from "../src/money.ts";

test("amounts are exact", () => {
  assert.equal(gram(0), "0");
  assert.equal(gram(1), "0.000000001");
  assert.equal(gram(14_472), "0.000014472");
  assert.equal(gram(1_234_500_000_000), "1,234.5");
  assert.equal(gram(-5), "−0.000000005");
});

test("what is typed is read, or said to be wrong", () => {
  assert.equal(nanoOf(" "), null);
  for (const [typed, nano] of [["0.18", 180_000_000], [",5", 500_000_000], ["2.", 2_000_000_000], ["0.000000001", 1]] as const)
    assert.equal(nanoOf(typed), nano, typed);
  for (const wrong of [".", "1e3", "-1", "0.0000000001", "12345678", "1.2.3", "NaN"]) assert.equal(nanoOf(wrong), undefined, wrong);
});

test("what is shown can be typed again", () => {
  for (const nano of [1, 999_999_999, 1_000_000_001, 180_000_000]) assert.equal(nanoOf(gram(nano)), nano);
});

test("an axis ends at or above the highest bar, in whole nano, with few marks", () => {
  for (const highest of [0, 1, 3, 7, 99, 14_472, 15_000_000, 123_456_789_012]) {
    const { top, ticks } = axisOf(highest);
    assert.ok(top >= highest && top > 0);
    assert.equal(ticks.at(-1), top);
    assert.ok(ticks.length >= 2 && ticks.length <= 7, `${highest}: ${ticks}`);
    assert.ok(ticks.every(Number.isInteger));
  }
});
