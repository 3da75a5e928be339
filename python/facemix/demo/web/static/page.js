// The page: pick faces, send them, and show what happens as it happens. What the server says: see booth.py.
"use strict";

const POLL_MS = 2000;
const NETWORKS = { mixed: "Trained with the mixing in the loop", baseline: "Baseline, trained without it" };

const $ = (id) => document.getElementById(id);
const picked = new Set();
const maps = { now: null, before: null }; // what the cloud received: for the request on show, and the one before
let page = null;
let busy = false;
let sent = 0;

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const photograph = (set, row, alt) => element("img", { src: `/photographs/${set}/${row}.png`, alt });
const person = (number) => `Person ${number + 1}`;
const kib = (bytes) => `${(bytes / 1024).toFixed(1)} KiB`;
const ms = (seconds) => `${(1000 * seconds).toFixed(2)} ms`;
const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

// Step 1: the picker.

function showPicker() {
  const seen = {};
  page.people.forEach((who, face) => {
    seen[who] = (seen[who] ?? 0) + 1;
    const box = element("input", { type: "checkbox", value: face, tabIndex: face === 0 ? 0 : -1 });
    const image = photograph("test", face, `${person(who)}, photograph ${seen[who]}`);
    image.loading = "lazy";
    $("faces").append(element("label", { className: "face" }, box, image));
  });
  $("some").textContent = `Pick ${Math.min(page.group_size, page.most)} for me`;
  page.networks.forEach((name, index) => {
    $("networks").append(element("label", {},
      element("input", { type: "radio", name: "network", value: name, checked: index === 0 }), NETWORKS[name]));
  });
  $("dtype").append(...page.wire_dtypes.map((name) => element("option", { value: name }, name)));
  $("honesty").textContent = page.honesty;
  showCount();
}

const boxes = () => [...$("faces").querySelectorAll("input")];

function pick(faces) {
  picked.clear();
  faces.forEach((face) => picked.add(face));
  boxes().forEach((box, face) => (box.checked = picked.has(face)));
  showCount();
}

function pickSome() {
  const shuffled = page.people.map((who, face) => ({ who, face, key: Math.random() })).sort((a, b) => a.key - b.key);
  const different = shuffled.filter(({ who }, place) => shuffled.findIndex((other) => other.who === who) === place);
  pick([...different, ...shuffled.filter((one) => !different.includes(one))]
    .slice(0, Math.min(page.group_size, page.most)).map(({ face }) => face));
}

function toggle({ target }) {
  const face = Number(target.value);
  if (target.checked && picked.size === page.most) {
    target.checked = false;
    return showCount(`${page.most} at most`);
  }
  if (target.checked) picked.add(face);
  else picked.delete(face);
  showCount();
}

function showCount(note) {
  $("count").textContent = note ?? `${picked.size} picked`;
  $("send").ariaDisabled = String(busy || picked.size === 0);
}

// One stop for the tab key; the arrow keys move within the faces.
function move(event) {
  const all = boxes();
  const columns = getComputedStyle($("faces")).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity };
  if (!(event.key in step)) return;
  event.preventDefault();
  const from = all.indexOf(document.activeElement);
  const wanted = from + step[event.key];
  focusOn(all[Math.abs(wanted) === Infinity ? (wanted < 0 ? 0 : all.length - 1) : wanted]);
}

function focusOn(box) {
  if (!box) return;
  boxes().forEach((other) => (other.tabIndex = other === box ? 0 : -1));
  box.focus();
}

// Steps 2 to 4.

async function send(event) {
  event.preventDefault();
  if (busy || picked.size === 0) return;
  busy = true;
  const wish = { faces: [...picked], network: $("form").elements.network.value, wire_dtype: $("dtype").value };
  begin(wish);
  try {
    const response = await fetch("/api/send",
      { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wish) });
    if (!response.ok) return SHOW.error({ text: "The demo refused to send that.", detail: (await response.json()).error });
    for await (const happened of eventsOf(response)) SHOW[happened.event](happened, wish);
  } catch (error) {
    SHOW.error({ text: "The demo itself does not answer. Is it still running?", detail: String(error) });
  } finally {
    busy = false;
    $("send").textContent = "Send again, with a fresh key";
    showCount();
  }
}

async function* eventsOf(response) {
  const [reader, decoder] = [response.body.getReader(), new TextDecoder()];
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

function begin(wish) {
  sent += 1;
  maps.before = maps.now?.faces === String(wish.faces) ? maps.now : null;
  maps.now = null;
  $("send").textContent = "Sending…";
  $("error").hidden = $("empty").hidden = true;
  $("verdict").textContent = "Waiting for the cloud…";
  for (const id of ["kept", "received", "received-before", "cost", "time", "predictions"]) $(id).replaceChildren();
  document.querySelectorAll(".result").forEach((section) => (section.hidden = false));
  $("before").hidden = true;
  $("kept").append(...wish.faces.map((face) =>
    element("li", {}, photograph("test", face, ""), person(page.people[face]))));
  $("kept-text").textContent = `${count(wish.faces.length, "photograph")}.`;
  $("received-text").textContent = "Nothing yet.";
  if ($("results").getBoundingClientRect().top > innerHeight / 2) $("results").scrollIntoView();
  showCount();
}

const SHOW = {
  mixed(mixed, wish) {
    const [rows, channels, height, width] = mixed.shape;
    const values = Int8Array.from(atob(mixed.values), (letter) => letter.charCodeAt(0));
    maps.now = { ...mixed, values, faces: String(wish.faces) };
    $("kept").append(...mixed.decoys.map((row) =>
      element("li", { className: "decoy" }, photograph("train", row, ""), "decoy")));
    const filled = mixed.decoys.length
      ? `${count(mixed.decoys.length, "decoy")} from public photographs ${mixed.decoys.length === 1 ? "fills" : "fill"} the group`
      : "they fill their groups without decoys";
    $("kept-text").textContent = `${count(wish.faces.length, "photograph")}; ${filled}. Groups of ${page.group_size} are mixed with one private random matrix each.`;
    $("received-text").textContent =
      `${count(rows, "row")} of ${channels - 1} channels, ${height} × ${width} ${wish.wire_dtype} each, mixed and shuffled: ` +
      "none belongs to the photograph above it. The key was drawn for this request and is wiped after it.";
    $("map").max = channels - 1;
    if (sent === 1) $("map").value = mixed.strongest;
    showMaps();
  },

  answer({ predictions, cost }, wish) {
    const right = `${predictions.filter((one) => one.right).length} of ${predictions.length}`;
    $("verdict").textContent = `${right} recognised`;
    $("said").textContent = `${right} recognised. ${kib(cost.bytes_up)} sent.`;
    $("predictions").append(...predictions.map(prediction));
    showCost(cost);
    remember(right, cost, wish);
  },

  error({ text, detail }) {
    $("error").replaceChildren(
      element("p", {}, element("strong", {}, text), " Nothing was recognised. Send again when the cloud is back."),
      element("p", {}, detail));
    $("error").hidden = false;
    $("verdict").textContent = "No answer.";
    $("received-text").textContent += " The cloud did not answer.";
    $("error").scrollIntoView({ block: "nearest" });
    watchCloud();
  },
};

function prediction({ face, label, right, reference, scores }) {
  const truth = page.people[face];
  const said = right ? `✓ ${person(label)}: right` : `✗ ${person(label)}: wrong, is ${truth + 1}`;
  return element("li", { className: right ? "right" : "wrong" },
    photograph("test", face, `Sent: ${person(truth)}`), "→",
    photograph("train", reference, `Recognised: reference photograph of ${person(label)}`),
    element("strong", {}, said),
    element("ol", { ariaLabel: "Best scores" }, ...scores.map(([who, share]) => {
      const bar = element("i", {});
      bar.style.width = `${100 * share}%`;
      return element("li", {}, element("span", {}, person(who)), element("span", { className: "bar" }, bar),
        element("span", {}, `${(100 * share).toFixed(1)} %`));
    })));
}

function showCost(cost) {
  const each = (bytes) => `${kib(bytes / cost.images)} a face`;
  const tile = (name, value, note, kind = "") =>
    element("div", { className: kind }, element("dt", {}, name), element("dd", {}, value), element("dd", {}, note));
  $("cost").append(
    tile("Up", kib(cost.bytes_up), each(cost.bytes_up)),
    tile("Down", kib(cost.bytes_down), each(cost.bytes_down)),
    tile("Edge", ms(cost.edge_seconds), "key, first layer, mix, un-mix, last layer", "edge"),
    tile("Network", ms(cost.network_seconds), "packing, sending, waiting", "wire"),
    tile("Cloud", ms(cost.cloud_seconds), "the layers between", "there"));
  const parts = { edge: cost.edge_seconds, wire: cost.network_seconds, there: cost.cloud_seconds };
  $("time").ariaLabel = `Edge ${ms(parts.edge)}, network ${ms(parts.wire)}, cloud ${ms(parts.there)}`;
  for (const [className, seconds] of Object.entries(parts)) {
    const part = element("i", { className });
    part.style.flexGrow = 1000 * seconds;
    $("time").append(part);
  }
}

function remember(right, cost, wish) {
  const cells = [wish.network === "mixed" ? "with mixing" : "baseline", wish.wire_dtype, right, kib(cost.bytes_up),
    kib(cost.bytes_down), ms(cost.edge_seconds), ms(cost.cloud_seconds), ms(cost.network_seconds)];
  $("history").prepend(element("tr", {}, element("th", { scope: "row" }, String(sent)),
    ...cells.map((text) => element("td", {}, text))));
  $("history-card").hidden = false;
}

// Heat maps.

function showMaps() {
  const map = Number($("map").value);
  $("map-name").textContent = map === 0 ? "the mean of all channels" : `channel ${map} of ${$("map").max}`;
  $("map").ariaValueText = $("map-name").textContent;
  const scale = colours();
  for (const [id, mixed] of [["received", maps.now], ["received-before", maps.before]]) {
    if (!mixed) continue;
    const canvases = [...$(id).querySelectorAll("canvas")];
    for (let row = 0; row < mixed.shape[0]; row++) {
      const canvas = canvases[row] ?? element("canvas", { role: "img" });
      if (!canvases[row]) $(id).append(element("li", {}, canvas, id === "received" ? `row ${row + 1}` : ""));
      canvas.ariaLabel = `Row ${row + 1} as the cloud receives it, ${$("map-name").textContent}`;
      paint(canvas, mixed, row, Math.min(map, mixed.shape[1] - 1), scale);
    }
  }
  $("before").hidden = !maps.before;
}

function paint(canvas, { shape: [, channels, height, width], values }, row, map, scale) {
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  const from = (row * channels + map) * height * width;
  for (let at = 0; at < height * width; at++) image.data.set(scale[values[from + at] + 127], 4 * at);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// A colour for each of -127 to 127.
function colours() {
  const style = getComputedStyle(document.documentElement);
  const [low, mid, high] = ["low", "mid", "high"].map((name) =>
    style.getPropertyValue(`--heat-${name}`).trim().split(" ").map(Number));
  return Array.from({ length: 255 }, (_, level) => {
    const share = (level - 127) / 127;
    return [...mid.map((value, at) => value + Math.abs(share) * ((share < 0 ? low : high)[at] - value)), 255];
  });
}

// The cloud.

async function watchCloud() {
  try {
    const { running, pid } = await (await fetch("/api/cloud")).json();
    showCloud(running ? "running" : "gone", running ? `Cloud: process ${pid}` : "The cloud has ended; it is being started again");
  } catch {
    showCloud("gone", "The demo has ended: start it again, and reload");
  }
}

function showCloud(className, text) {
  if ($("cloud").textContent === text) return;
  $("cloud").className = `pill ${className}`;
  $("cloud").textContent = text;
}

async function start() {
  page = await (await fetch("/api/page")).json();
  showPicker();
  $("faces").addEventListener("change", toggle);
  $("faces").addEventListener("keydown", move);
  $("faces").addEventListener("focusin", ({ target }) => target.tabIndex === -1 && focusOn(target));
  $("some").addEventListener("click", pickSome);
  $("clear").addEventListener("click", () => pick([]));
  $("map").addEventListener("input", showMaps);
  $("form").addEventListener("submit", send);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showMaps);
  watchCloud();
  setInterval(() => document.visibilityState === "visible" && watchCloud(), POLL_MS);
}

start();
