// Unpacks the Chromium that comes as an npm package, and says where it is: its program, and the libraries it may need.
// In a process of its own, because it goes where the environment's TMPDIR says. Its own list of fonts names other
// folders whatever that says, and without any font Chromium ends at the first letter, so it gets another list.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";

import chromium, { inflate } from "@sparticuz/chromium";

const packed = fileURLToPath(new URL("node_modules/@sparticuz/chromium/bin/al2023.tar.br", import.meta.url));
const program = await chromium.executablePath();
const libraries = await inflate(packed);
const fonts = join(tmpdir(), "fonts");
const list = join(tmpdir(), "fonts.conf");
const cache = join(tmpdir(), "fonts-cache");
writeFileSync(list, `<fontconfig><dir>${fonts}</dir><cachedir>${cache}</cachedir></fontconfig>\n`);
console.log(JSON.stringify({ program, libraries: join(libraries, "lib"), fonts: list }));
