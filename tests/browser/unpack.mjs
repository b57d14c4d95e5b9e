// Unpacks the Chromium that comes as an npm package, and says where it is: its program, and the libraries it may need.
// In a process of its own, because it goes where the environment's TMPDIR says.
import { join } from "node:path";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";

import chromium, { inflate } from "@sparticuz/chromium";

const packed = fileURLToPath(new URL("node_modules/@sparticuz/chromium/bin/al2023.tar.br", import.meta.url));
const program = await chromium.executablePath();
const libraries = await inflate(packed);
console.log(JSON.stringify({ program, libraries: join(libraries, "lib"), fonts: join(tmpdir(), "fonts") }));
