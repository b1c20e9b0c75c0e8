// ---- the list

function drawList() {
  const worst = (card) => Math.max(-1, ...card.positive.map((finding) => finding.excess));
  const orders = {
    findings: (a, b) => worst(cards[b]) - worst(cards[a]) || a - b,
    name: (a, b) => cards[a].name.localeCompare(cards[b].name, undefined, { numeric: true }),
    input: (a, b) => a - b,
  };
  const order = cards.map((_, i) => i).sort(orders[$("order").value]);
  $("films").replaceChildren(...order.map((index) => {
    const card = cards[index];
    const chips = card.positive.map((f) => colored(el("span", { className: "chip" }, `${spaced(f.label)} ${score(f.score)}`), f.color));
    if (card.refused) chips.push(el("span", { className: "warned" }, `Refused: ${spaced(card.refused)}`));
    else if (!chips.length) chips.push(el("span", { className: "quiet" }, "No finding"));
    if (card.warnings) chips.push(el("span", { className: "warned" }, plural(card.warnings, "note")));
    const button = el("button", { type: "button", title: card.name, onclick: () => choose(index), "aria-current": String(index === state.index) },
      el("img", { src: card.thumb, alt: "", loading: "lazy", decoding: "async" }), el("span", { className: "what" }, el("strong", {}, base(card.name)), el("span", { className: "chips" }, ...chips)));
    const row = el("li", {}, button);
    row.card = index;
    return row;
  }));
  filterList();
}

function filterList() {
  const words = $("filter").value.toLowerCase().split(/\s+/);
  for (const row of $("films").children) {
    const { name, positive } = cards[row.card];
    const text = `${name} ${positive.map((f) => `${f.label} ${spaced(f.label)}`).join(" ")}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

function step(by) {
  const rows = [...$("films").children].filter((row) => !row.hidden);
  const at = rows.findIndex((row) => row.card === state.index);
  const next = rows[at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1)];
  if (next && next.card !== state.index) choose(next.card);
}

// ---- zoom, read-out, keys

const view = { scale: 1, x: 0, y: 0 };

function zoom(scale, x = 0, y = 0) {
  const { offsetWidth: width, offsetHeight: height } = $("sheet");
  const within = (value, size) => Math.min(0, Math.max(value, size * (1 - scale)));
  Object.assign(view, { scale, x: within(x, width), y: within(y, height) });
  $("sheet").style.transform = scale === 1 ? "" : `translate(${view.x}px, ${view.y}px) scale(${scale})`;
  $("sheet").style.setProperty("--zoom", scale);
  $("frame").classList.toggle("zoomed", scale > 1);
}

function readOut(event) {
  const area = $("sheet").getBoundingClientRect();
  const across = (event.clientX - area.left) / area.width, down = (event.clientY - area.top) / area.height;
  if (Math.min(across, down) < 0 || Math.max(across, down) >= 1) return;
  const { image_width: width, image_height: height } = state.film.geometry;
  let text = `x ${Math.floor(across * width)}, y ${Math.floor(down * height)}`;
  const { map, finding } = state.focus ?? {};
  if (map) {
    const index = map.values[Math.floor(down * map.height) * map.width + Math.floor(across * map.width)];
    const bound = index === 255 ? "≥ " : index === 0 ? "≤ " : "";
    text += ` · ${spaced(finding.label)} map ${bound}${toLogit(index, finding.map_threshold).toFixed(2)} logits, threshold ${finding.map_threshold.toFixed(2)}`;
  }
  $("readout").textContent = text;
}

function connect() {
  $("opacity").oninput = () => {
    $("sheet").style.setProperty("--opacity", $("opacity").value / 100);
    $("opacity-value").textContent = `${$("opacity").value}%`;
  };
  for (const what of ["outlines", "boxes", "peaks"]) {
    $(`show-${what}`).onchange = (event) => $("sheet").classList.toggle(`no-${what}`, !event.target.checked);
  }
  for (const id of ["plain", "weighted"]) $(id).onclick = () => { state.weighted = id === "weighted"; drawMethod(); };
  $("filter").oninput = filterList;
  $("order").onchange = drawList;
  $("theme").onclick = () => $("theme").setAttribute("aria-pressed", document.documentElement.classList.toggle("light"));
  $("about-open").onclick = () => $("about").showModal();
  $("frame").onpointermove = (event) => {
    if (event.buttons === 1 && view.scale > 1) zoom(view.scale, view.x + event.movementX, view.y + event.movementY);
    readOut(event);
  };
  $("frame").ondblclick = (event) => {
    const area = $("sheet").getBoundingClientRect(), scale = 2.5;
    if (view.scale > 1) zoom(1);
    else zoom(scale, (event.clientX - area.left) * (1 - scale), (event.clientY - area.top) * (1 - scale));
  };
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]), select") || $("about").open;
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const layer = state.layers[Number(event.key) - 1];
    if (["ArrowDown", "ArrowRight", "j"].includes(event.key)) step(1);
    else if (["ArrowUp", "ArrowLeft", "k"].includes(event.key)) step(-1);
    else if (event.key === "o" || event.key === "O") $("sheet").classList.toggle("bare");
    else if (event.key === "/") $("filter").focus();
    else if (layer) show(layer, !layer.on);
    else return;
    event.preventDefault();
  });
}

function drawPage() {
  $("title").textContent = title;
  const found = cards.filter((card) => card.positive.length).length;
  const refusals = cards.filter((card) => card.refused).length;
  const refused = refusals ? ` · ${refusals} refused` : "";
  const failed = failures.length ? ` · ${failures.length} failed` : "";
  const turn = (number, text) => el("a", { href: `${pages.name}${number > 1 ? `-${number}` : ""}${pages.suffix}` }, text);
  if (pages.number > 1) $("pages").append(turn(pages.number - 1, "← Page before"));
  if (!pages.last) $("pages").append(turn(pages.number + 1, "Next page →"));
  $("pages").hidden = !$("pages").childNodes.length;
  $("counts").textContent = `${pages.number > 1 || !pages.last ? `Page ${pages.number} · ` : ""}${plural(cards.length, "film")} · ${found} with findings${refused}${failed}`;
  $("model-line").textContent = [model.name, model.version, (model.sha256 ?? "").slice(0, 12)].filter(Boolean).join(" · ");
  $("about-title").textContent = [model.name, model.version].filter(Boolean).join(" ");
  $("use").textContent = model.intended_use ?? "";
  describe($("identity"), { "Operating point": model.operating_point, "SHA-256": model.sha256, Classes: model.classes?.map(spaced).join(", ") });
  const weights = Object.entries(model.relevance ?? {});
  if (weights.length) {
    const stages = weights[0][1].map((_, s) => el("th", { scope: "col" }, `Stage ${s + 1}`));
    const cell = (weight) => {
      const node = el("td", {}, weight.toFixed(2));
      node.style.setProperty("--weight", percent(weight));
      return node;
    };
    $("relevance").replaceChildren(el("caption", {}, "Layer relevance weights and map thresholds"), el("tr", {}, el("th", { scope: "col" }, "Class"), ...stages, el("th", { scope: "col" }, "Threshold, logits")),
      ...weights.map(([label, row]) => el("tr", {}, el("th", { scope: "row" }, spaced(label)), ...row.map(cell), el("td", {}, model.map_thresholds?.[label]?.toFixed(2) ?? "–"))));
  }
  $("failures").hidden = !failures.length;
  $("failures-title").textContent = `${plural(failures.length, "input")} failed`;
  $("failures").lastElementChild.append(...failures.map(({ input: name, reason, message }) =>
    el("li", {}, el("strong", { title: name }, base(name)), el("code", {}, reason), el("p", {}, message))));
}

drawPage();
connect();
drawList();
$("film").hidden = !films.length;
$("none").hidden = films.length > 0;
const asked = Number(location.hash.slice(1)) - 1;
if (films.length) choose(films[asked] ? asked : $("films").firstChild.card);
