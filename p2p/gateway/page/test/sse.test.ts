import assert from "node:assert/strict";
import { test } from "node:test";

import { EventReader } from "../src/sse.ts";

const STREAM = 'data: {"a": 1}\n\n: still here\n\ndata: one\ndata: two\r\n\r\nevent: x\ndata:[DONE]\n\ndata: never ended\n';
const EVENTS = ['{"a": 1}', "one\ntwo", "[DONE]"];

test("events are the same wherever the stream is cut", () => {
  for (let size = 1; size <= STREAM.length; size++) {
    const reader = new EventReader();
    const found: string[] = [];
    for (let at = 0; at < STREAM.length; at += size) found.push(...reader.read(STREAM.slice(at, at + size)));
    assert.deepEqual(found, EVENTS, `in pieces of ${size}`);
  }
});
