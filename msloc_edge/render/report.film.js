// ---- the chosen film

const films = blocks("film");
const cards = blocks("card").map(read);
const failures = blocks("failure").map(read);
const { title, model } = read(blocks("report")[0]);
const pages = read(blocks("pages")[0]);
const state = { index: -1, film: null, layers: [], focus: null, weighted: false };

async function choose(index) {
  state.index = index;
  const film = state.film = read(films[index]);
  history.replaceState(null, "", `#${index + 1}`);
  for (const row of $("films").children) row.firstChild.setAttribute("aria-current", row.card === index);
  $("films").querySelector("[aria-current=true]").scrollIntoView({ block: "nearest", inline: "nearest" });
  $("live").textContent = `Film ${index + 1} of ${films.length}: ${base(film.input)}`;
  $("name").textContent = base(film.input);
  $("name").title = film.input;
  $("links").replaceChildren(...Object.entries(film.links).map(([what, name]) =>
    el("a", { href: name.split("/").map(encodeURIComponent).join("/"), target: "_blank", rel: "noopener" }, what)));
  $("warnings").hidden = !film.warnings.length;
  $("warnings").textContent = `Note: ${film.warnings.join(", ")}`;

  const ranked = [...film.findings].sort((a, b) => b.positive - a.positive || b.excess - a.excess);
  drawSheet(film, ranked);
  const rows = ranked.map((finding) => findingRow(finding, state.layers.find((layer) => layer.finding === finding)));
  const count = ranked.filter((finding) => finding.positive).length;
  $("positive-title").textContent = film.refused ? `Refused: ${spaced(film.refused)}` : count ? plural(count, "finding") : "No finding";
  $("abnormal").hidden = !film.abnormal;
  $("abnormal").textContent = film.abnormal ? gateLine(film.abnormal) : "";
  $("operating-point").textContent = model.operating_point ?? "";
  $("positive").replaceChildren(...rows.slice(0, count));
  $("rest").replaceChildren(...rows.slice(count));
  $("rest").parentElement.hidden = count === rows.length;
  showFacts(film);
  focus(state.layers[0] ?? null);
  await Promise.all(state.layers.filter((layer) => layer.finding.map).map(async (layer) => {
    layer.map = await levels(layer.finding.map);
    paint(layer.canvas, layer.map, layer.finding.color);
    const d = outline(layer.map, film.geometry.image_width, film.geometry.image_height);
    for (const kind of ["halo", "line"]) layer.group.prepend(shape("path", { class: `outline ${kind}`, d }));
    layer.group.prepend(layer.group.querySelector(".outline.halo"));
  }));
  if (state.film === film) document.body.dataset.ready = index + 1; // for tests: all is drawn
}

function drawSheet(film, ranked) {
  const { image_width: width, image_height: height } = film.geometry;
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "group", "aria-label": "Regions" });
  const sheet = $("sheet");
  sheet.style.setProperty("--ratio", width / height);
  sheet.replaceChildren(el("img", { src: film.image, alt: `Film ${base(film.input)}`, draggable: false }));
  state.layers = ranked.filter((finding) => finding.map || finding.boxes.length || finding.positive).map((finding, order) => {
    const layer = { finding, number: order + 1, canvas: el("canvas", { className: "heat" }), tags: [] };
    layer.group = colored(shape("g", { class: "layer" }), finding.color);
    layer.group.addEventListener("click", () => focus(layer));
    for (const box of finding.boxes) {
      const spoken = `${spaced(finding.label)}: box at x ${Math.round(box.x)}, y ${Math.round(box.y)}, ${Math.round(box.w)} × ${Math.round(box.h)} px, score ${score(box.score)}`;
      const place = { x: box.x, y: box.y, width: box.w, height: box.h };
      layer.group.append(shape("rect", { ...place, class: "box halo" }), hinted(shape("rect", { ...place, class: "box line", role: "img" }), spoken));
      const tag = colored(el("span", { className: "tag", "aria-hidden": "true" }, String(layer.number)), finding.color);
      Object.assign(tag.style, { left: percent(box.x / width), top: percent(box.y / height) });
      tag.classList.toggle("inside", box.y < 0.04 * height);
      layer.tags.push(tag);
    }
    if (finding.peak) {
      const { x, y, value } = finding.peak, arm = 0.011 * Math.max(width, height);
      const d = `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`;
      layer.group.append(shape("path", { d, class: "peak halo" }), hinted(shape("path", { d, class: "peak line", role: "img" }), `${spaced(finding.label)}: peak ${value.toFixed(2)} logits at x ${Math.round(x)}, y ${Math.round(y)}`));
    }
    drawing.prepend(layer.group);
    sheet.append(layer.canvas);
    return layer;
  });
  sheet.append(drawing, ...state.layers.flatMap((layer) => layer.tags));
  for (const layer of state.layers) show(layer, layer.finding.positive && layer.number <= (model.show ?? Infinity));
  zoom(1);
}

function hinted(node, text) {
  node.setAttribute("aria-label", text);
  node.addEventListener("pointermove", ({ clientX, clientY }) => {
    const tip = $("tip");
    tip.textContent = text;
    tip.hidden = false;
    Object.assign(tip.style, { left: `${Math.min(clientX + 14, innerWidth - tip.offsetWidth - 8)}px`, top: `${clientY + 16}px` });
  });
  node.addEventListener("pointerleave", () => { $("tip").hidden = true; });
  return node;
}

function show(layer, on) {
  layer.on = on;
  layer.canvas.hidden = !on;
  layer.group.toggleAttribute("hidden", !on);
  for (const tag of layer.tags) tag.hidden = !on;
  if (layer.toggle) layer.toggle.checked = on;
}

function findingRow(finding, layer) {
  const bar = el("div", { className: "bar", role: "meter", "aria-label": `Score of ${spaced(finding.label)}`, "aria-valuemin": "0", "aria-valuemax": "1", "aria-valuenow": String(finding.score), title: `score ${score(finding.score)}, threshold ${score(finding.threshold)}` }, el("i"), el("b"));
  bar.firstChild.style.width = percent(finding.score);
  bar.lastChild.style.left = percent(finding.threshold);
  const name = layer ? el("button", { type: "button", className: "label", title: "Show how this map came about" }, spaced(finding.label)) : el("span", { className: "label" }, spaced(finding.label));
  const row = colored(el("li", { className: finding.positive ? "finding" : "finding minor" }, name), finding.color);
  const number = el("span", { className: "score" }, score(finding.score));
  const why = finding.lacks_region ? el("small", {}, "no region") : bar; // a bar above its tick would read as a finding
  row.append(...finding.positive ? [number, bar] : [why, number]);
  if (!layer) return row;
  layer.toggle = el("input", { type: "checkbox", role: "switch", checked: layer.on, "aria-label": `Show ${spaced(finding.label)}`, onchange: () => show(layer, layer.toggle.checked) });
  layer.row = row;
  name.onclick = () => focus(layer);
  row.prepend(el("span", { className: "disc", "aria-hidden": "true" }, String(layer.number)));
  row.append(layer.toggle);
  if (!finding.positive) return row;
  const peak = finding.peak ? ` · map peak ${finding.peak.value.toFixed(1)}` : "";
  row.append(el("small", {}, `threshold ${score(finding.threshold)} · ${plural(finding.boxes.length, "region")}${peak}`));
  return row;
}

function gateLine({ score: value, threshold, positive }) {
  const words = `Film as a whole: ${score(value)}`;
  return threshold === null ? words : `${words}, ${positive ? "above" : "below"} ${score(threshold)}`;
}

function showFacts(film) {
  const { geometry: g } = film;
  const facts = {
    File: film.input, "SHA-256": film.sha256, "Film size": `${g.image_width} × ${g.image_height} px`,
    "Model input": `${g.input_width} × ${g.input_height} px, film in ${g.width} × ${g.height}`, Backend: film.backend,
    Profile: film.profile, Program: film.program, Localized: film.time,
    "Time, ms": Object.entries(film.timing_ms).map(([stage, ms]) => `${stage} ${ms.toFixed(1)}`).join(", "),
  };
  describe($("facts"), facts);
}

function describe(list, facts) {
  list.replaceChildren(...Object.entries(facts).filter(([, value]) => value)
    .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

// ---- how the map of one finding came about

function focus(layer) {
  state.focus = layer;
  for (const each of state.layers) each.row.classList.toggle("focused", each === layer);
  $("readout").textContent = "";
  $("scale").hidden = !layer?.finding.map;
  if (layer?.finding.map) {
    const t = layer.finding.map_threshold, [low, , high] = $("scale").querySelectorAll("span");
    low.textContent = t > 0 ? "0" : (t - 1).toFixed(2);
    high.textContent = t > 0 ? "2× or more" : `${(t + 1).toFixed(2)} or more`;
    paint($("scale").firstElementChild, { width: 256, height: 1, values: Float32Array.from({ length: 256 }, (_, i) => i) }, layer.finding.color);
  }
  drawMethod();
}

function drawMethod() {
  const finding = state.focus?.finding;
  $("method").hidden = !finding?.stages?.length;
  if ($("method").hidden) return;
  $("method-title").textContent = `How the map of ${spaced(finding.label)} came about`;
  $("plain").setAttribute("aria-pressed", !state.weighted);
  $("weighted").setAttribute("aria-pressed", state.weighted);
  const { geometry: g, image } = state.film;
  const total = finding.stages.reduce((sum, stage, s) => sum + finding.relevance[s] * stage.mean, 0);
  const tile = (caption, weight, detail, source, toValues) => {
    const canvas = el("canvas");
    const picture = el("div", { className: "picture" }, el("img", { src: image, alt: "" }), canvas);
    picture.style.setProperty("--ratio", g.image_width / g.image_height);
    const bar = el("div", { className: "bar" }, el("i"));
    bar.firstChild.style.width = percent(weight);
    const size = el("span", { className: "grid" });
    levels(source).then((grid) => {
      if (source !== finding.map) size.textContent = `${grid.height} × ${grid.width}`; // the map is no vote of its own
      paint(canvas, { ...grid, values: grid.values.map(toValues) }, finding.color, alone);
    });
    return { picture, canvas, node: colored(el("figure", {}, picture, el("figcaption", {}, el("strong", {}, caption), size, bar, el("small", {}, detail))), finding.color) };
  };
  const tiles = finding.stages.map((stage, s) => {
    const weight = finding.relevance[s];
    const { node, canvas } = tile(`Stage ${s + 1}: ${weight.toFixed(2)}`, weight, `adds ${signed(weight * stage.mean)} to the mean`, stage.image,
      (level) => toIndex((stage.low + (stage.high - stage.low) * level / 255) * (state.weighted ? weight : 1), finding.map_threshold));
    canvas.className = "cells"; // a stage map covers the whole model input: the letterbox is cut off by its frame
    Object.assign(canvas.style, {
      left: `${-100 * g.left / g.width}%`, top: `${-100 * g.top / g.height}%`,
      width: `${100 * g.input_width / g.width}%`, height: `${100 * g.input_height / g.height}%`,
    });
    return node;
  });
  const sum = tile("Their sum M", 1, `mean ${signed(total)} logits`, finding.map, (index) => index);
  sum.node.classList.add("sum");
  const signs = (node, i) => [el("span", { className: "sign", "aria-hidden": "true" }, i < tiles.length - 1 ? "+" : "="), node];
  $("strip").replaceChildren(...tiles.flatMap((node, i) => signs(node, i).reverse()), sum.node);
}
