// What the examples classify: RGB pixels of a binary PPM (P6, 255 levels), else token ids with white space between.

export function parse(bytes) {
  const text = new TextDecoder("latin1").decode(bytes);
  const head = /^P6\s+\d+\s+\d+\s+255\s/.exec(text);
  if (head) return new Uint8Array(bytes.subarray(head[0].length));
  return text.trim().split(/\s+/).map(Number);
}
