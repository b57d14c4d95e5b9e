// Compiles channel.tolk into channel.boc and channel.hash, in this directory: node compile.mjs [TARGET [SOURCE]]
// A target is another directory for the two; a source is another file than channel.tolk.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runTolkCompiler } from "@ton/tolk-js";

const here = import.meta.dirname;
const target = process.argv[2] ?? here;
const source = process.argv[3] ?? join(here, "channel.tolk");

const result = await runTolkCompiler({
  entrypointFileName: "channel.tolk",
  fsReadCallback: () => readFileSync(source, "utf8"),
});
if (result.status === "error") {
  console.error(result.message);
  process.exit(1);
}
writeFileSync(join(target, "channel.boc"), Buffer.from(result.codeBoc64, "base64"));
writeFileSync(join(target, "channel.hash"), result.codeHashHex.toLowerCase() + "\n");
console.log(`channel code ${result.codeHashHex.toLowerCase()}`);
