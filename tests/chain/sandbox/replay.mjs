// Executes messages on the TVM of @ton/sandbox: node replay.mjs TRACE
// TRACE is a JSON file, {config, steps: [{account, message, now, lt}]} with cells as bags in base64. Prints a JSON array
// with, for each step, {transaction, account}, or null for an external message that was not accepted.
import { readFileSync } from "node:fs";
import { Cell } from "@ton/core";
import { Executor } from "@ton/sandbox";

const trace = JSON.parse(readFileSync(process.argv[2], "utf8"));
const executor = await Executor.create();
const results = [];
for (const { account, message, now, lt } of trace.steps) {
  const { result } = await executor.runTransaction({
    config: trace.config,
    libs: null,
    verbosity: "short",
    shardAccount: account,
    message: Cell.fromBase64(message),
    now,
    lt: BigInt(lt),
    randomSeed: null,
    ignoreChksig: false,
    debugEnabled: false,
  });
  const refused = !result.success && (result.vmResults || /external message rejected/.test(result.error));
  if (!result.success && !refused) throw new Error(result.error);
  results.push(result.success ? { transaction: result.transaction, account: result.shardAccount } : null);
}
process.stdout.write(JSON.stringify(results));
