// Every text reaches the page through textContent; every film stays an unread block of JSON until it is chosen.
const $ = (id) => document.getElementById(id);
const blocks = (kind) => [...document.querySelectorAll(`script.${kind}[type="application/json"]`)];
const read = (block) => JSON.parse(block.textContent);
const SVG = "http://www.w3.org/2000/svg";
const OUTLINE = 127.5; // a colour index of 128 or more is a map at or above its threshold

function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function colored(node, color) {
  node.style.setProperty("--color", color);
  return node;
}

const spaced = (label) => label.replaceAll("_", " ");
const base = (path) => path.split(/[\\/]/).pop() || path;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const score = (value) => value === null ? "–" : value.toFixed(value < 0.1 ? 3 : 2);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const percent = (value) => `${100 * Math.min(Math.max(value ?? 0, 0), 1)}%`;

// ---- maps: one absolute scale per class, the same as msloc_edge.render.heatmap.color_index

const toIndex = (value, t) => Math.min(Math.max(128 * (t > 0 ? value / t : 1 + value - t), 0), 255);
const toLogit = (index, t) => t > 0 ? index / 128 * t : t + index / 128 - 1;
const overFilm = (index) => index < 48 ? 0 : 0.85 * ((index - 48) / 207) ** 1.3; // weak evidence leaves the film as it is
const alone = (index) => 0.9 * index / 255; // beside the film nothing is held back

async function levels(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = el("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { width, height, values: Float32Array.from({ length: width * height }, (_, i) => data[4 * i]) };
}

function paint(canvas, { width, height, values }, color, alpha = overFilm) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  for (let i = 0; i < values.length; i++) pixels.data.set([red, green, blue, 255 * alpha(values[i])], 4 * i);
  context.putImageData(pixels, 0, 0);
}

// Marching squares between pixel centres; the map goes on to its edges with its outermost values.
function outline({ width, height, values }, filmWidth, filmHeight) {
  const at = (x, y) => values[Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1)];
  const place = (x, y) => `${(Math.min(Math.max((x + 0.5) / width, 0), 1) * filmWidth).toFixed(1)} ` +
    (Math.min(Math.max((y + 0.5) / height, 0), 1) * filmHeight).toFixed(1);
  let path = "";
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const heights = corners.map(([cx, cy]) => at(cx, cy) - OUTLINE);
      const crossings = [];
      for (let i = 0; i < 4; i++) {
        const j = (i + 1) % 4;
        if (heights[i] >= 0 === heights[j] >= 0) continue;
        const share = heights[i] / (heights[i] - heights[j]);
        crossings.push(place(...[0, 1].map((axis) => corners[i][axis] + share * (corners[j][axis] - corners[i][axis]))));
      }
      for (let i = 0; i < crossings.length; i += 2) path += `M${crossings[i]}L${crossings[i + 1]}`;
    }
  }
  return path;
}
