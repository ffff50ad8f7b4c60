// node classify.mjs BUNDLE FILE...: one line of JSON for each file, a binary PPM (P6) of the model's size or tokens.

import { webcrypto } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as ort from "onnxruntime-web";
import { open } from "./bundle.mjs";
import { parse } from "./input.mjs";

globalThis.crypto ??= webcrypto; // before node 20 a module has none
const [folder, ...files] = process.argv.slice(2);
const bundle = await open(ort, (name) => readFile(join(folder, name)), await readdir(folder));
for (const file of files) console.log(JSON.stringify(await bundle.classify(parse(await readFile(file)))));
