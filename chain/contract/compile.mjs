// Compiles channel.tolk into channel.boc and channel.hash, in this directory or in the one named as argument.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runTolkCompiler } from "@ton/tolk-js";

const here = import.meta.dirname;
const target = process.argv[2] ?? here;

const result = await runTolkCompiler({
  entrypointFileName: "channel.tolk",
  fsReadCallback: (path) => readFileSync(join(here, path), "utf8"),
});
if (result.status === "error") {
  console.error(result.message);
  process.exit(1);
}
writeFileSync(join(target, "channel.boc"), Buffer.from(result.codeBoc64, "base64"));
writeFileSync(join(target, "channel.hash"), result.codeHashHex.toLowerCase() + "\n");
console.log(`channel code ${result.codeHashHex.toLowerCase()}`);
