// A bundle of edgeft in JavaScript, for node and browsers: proves every digest, scores, and decides by the manifest.
// The contract is in docs/runtime.md; `ort` is onnxruntime-web or onnxruntime-node, which have the same interface.

// `read(name)` returns a file of the bundle as a Uint8Array, `present` the names in its folder where they can be listed.
// Only the manifest is parsed before all digests are proven.
export async function open(ort, read, present = []) {
  const text = new TextDecoder().decode(await read("manifest.json"));
  const manifest = JSON.parse(text);
  if (manifest.schema !== 1) throw new Error(`manifest.json: schema ${manifest.schema}, this program reads 1`);
  await prove("manifest.json", new TextEncoder().encode(canonical(text, manifest)), manifest.self_digest);
  const [contents, listed] = [{}, { ...manifest.evidence, ...manifest.files }];
  const extra = present.filter((name) => !(Object.hasOwn(listed, name) || ["manifest.json", "model.sig"].includes(name)));
  if (extra.length) throw new Error(`${extra.join(", ")} not listed in manifest.json`);
  for (const [name, digest] of Object.entries(listed)) {
    contents[name] = await read(name);
    await prove(name, contents[name], digest);
  }
  const options = { executionProviders: ["cpu"], intraOpNumThreads: 1 };
  const session = await ort.InferenceSession.create(contents[manifest.model], options);
  return { manifest, classify: (source) => classify(ort, session, manifest, source) };
}

async function prove(name, bytes, digest) {
  const found = Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
  const hex = found.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== digest) throw new Error(`${name} is damaged: sha256 ${hex}, expected ${digest}`);
}

// The manifest without white space between its parts and without its own digest: numbers keep the spelling they have.
function canonical(text, { self_digest }) {
  const dense = text.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1");
  return dense.replace(`,"self_digest":"${self_digest}"`, "");
}

// `source`: RGB pixels of the model's own size, a Uint8Array of height * width * 3; of a text model an array of tokens.
async function classify(ort, session, manifest, source) {
  const { kind, height, width, types, pair } = manifest.input;
  if (pair) throw new Error("this program knows no pairs of texts");
  const tensor = (type, values, shape) => new ort.Tensor(type, values, [1, ...shape]);
  const tokens = (values) => tensor("int64", BigInt64Array.from(values, BigInt), [source.length]);
  let feeds;
  if (kind === "text") {
    feeds = { input_ids: tokens(source), attention_mask: tokens(source.map(() => 1)) };
    if (types) feeds.token_type_ids = tokens(source.map(() => 0));
  } else {
    feeds = { pixels: tensor("uint8", source, [height, width, 3]) };
  }
  const scores = Array.from((await session.run(feeds)).scores.data);
  if (scores.length !== manifest.classes.length) throw new Error(`${scores.length} scores, not one for each class`);
  const { index, review } = decide(scores, manifest);
  const by_class = Object.fromEntries(manifest.classes.map((name, place) => [name, scores[place]]));
  return { label: manifest.classes[index], index, score: scores[index], review, scores: by_class };
}

// The highest score, or the thresholds on badness = 1 - score of the class of good parts.
export function decide(scores, { classes, decision }) {
  const good = decision.method === "threshold" ? classes.indexOf(decision.ok) : null;
  if (good === -1 || !["argmax", "threshold"].includes(decision.method)) throw new Error("the decision is not known");
  const others = [...classes.keys()].filter((index) => index !== good);
  const best = others.reduce((a, b) => (scores[b] > scores[a] ? b : a));
  if (good === null) return { index: best, review: false };
  const badness = 1 - scores[good];
  if (badness < decision.stop_at) return { index: good, review: false };
  return { index: best, review: badness < decision.sure_at };
}
