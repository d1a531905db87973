// The page: one state; every change of it is evaluated and drawn anew.

import { drawCobweb, drawForces, drawTrajectory, shownRange } from "./charts.js";
import { connect, roundedProbability, trainerNotes } from "./controls.js";
import { evaluate } from "./evaluate.js";
import { STATUS } from "./fixed_points.js";
import { phaseChart } from "./phase_chart.js";
import {
  VARIANTS,
  alphaOf,
  conflictIn,
  normalizationOf,
  readHash,
  withPreset,
  withoutStaleTrainer,
  writeHash,
} from "./state.js";
import { tabulated } from "./table.js";
import { exact, factor, settingsLine, snippet, verdict } from "./words.js";

const $ = (id) => document.getElementById(id);
const PRESETS = JSON.parse($("presets").textContent, (key, value) =>
  key === "group_size" && value === null ? Infinity : value,
);

let state = null;
let found = null;
let planeKey = {};
let turn = 0;

const phase = phaseChart($("phase-canvas"), $("phase"), phaseColors);
const follow = connect(document, want, (message) => say([message]));

// ---- what the user does ---------------------------------------------------------------------------------------------

function want(change) {
  let next = { ...state, ...change };
  if ("update" in change || "variant" in change) {
    if (next.update === "gradient" && conflictIn({ ...next, silent_groups: "keep" })) {
      next = {
        ...next,
        ...("update" in change ? { variant: next.variant.includes("dr_") ? "dr_grpo" : "grpo" } : { update: "exact" }),
      };
    }
  }
  if (conflictIn(next)) next.silent_groups = "keep";
  say([]);
  show(withoutStaleTrainer(next, PRESETS));
}

$("trainer").addEventListener("change", () => {
  const preset = PRESETS.find(({ id }) => id === $("trainer").value);
  say([]);
  show(preset ? withPreset({ ...state, p0: state.p0 }, preset) : { ...state, trainer: null });
});

function drag(event) {
  if (event.type === "pointermove" && (event.buttons === 0 || event.pointerType === "touch")) return;
  const { beta, L } = phase.under(event);
  want({ beta: Number(beta.toPrecision(3)), p_ref: roundedProbability(L) });
}
for (const type of ["pointerdown", "pointermove"]) $("phase").addEventListener(type, drag);

$("cobweb").addEventListener("click", (event) => {
  const box = $("cobweb").getBoundingClientRect();
  const part = Math.min(Math.max((event.clientX - box.left - 58) / (box.width - 72), 0), 1);
  want({ p0: roundedProbability(found.range[0] + part * (found.range[1] - found.range[0])) });
});

let address = location.hash; // as last read or written

function readAddress() {
  address = location.hash;
  if (address !== writeHash(state)) readAndShow(address);
}
window.addEventListener("hashchange", () => location.hash !== address && readAddress());

$("copy-link").addEventListener("click", () => copy(location.href.split("#")[0] + writeHash(state), "Link copied"));
$("copy-python").addEventListener("click", () => copy(snippet(state), "Python copied"));

let forgetting = 0;

async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    $("status").textContent = `${done}.`;
  } catch {
    $("status").textContent = "This browser does not let a page copy: ";
    const field = Object.assign(document.createElement("input"), { value: text, readOnly: true });
    field.setAttribute("aria-label", "Text to copy");
    $("status").append(field);
    field.select();
  }
  clearTimeout(forgetting);
  forgetting = setTimeout(() => ($("status").textContent = ""), 6000);
}

$("theme").addEventListener("click", () => {
  const dark = !isDark();
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  remember(dark ? "dark" : "light");
  showTheme();
});

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function remember(theme) {
  try {
    localStorage.setItem("grpo-explorer-theme", theme);
  } catch {
    // without storage the choice lasts as long as the page
  }
}

function showTheme() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
  phase.repaint();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);

// ---- what the page shows --------------------------------------------------------------------------------------------

function show(next) {
  const begun = performance.now();
  state = next;
  found = evaluate(state);
  found.range = shownRange(found);
  follow(state);
  showWords();
  showTable();
  drawPictures();
  const mine = ++turn;
  if (found.settled?.size !== 2) setTimeout(() => goOn(mine), 30);
  setTimeout(() => mine === turn && keepInAddress(), 150);
  page.milliseconds = performance.now() - begun;
}

// What took too long for the first picture, bit by bit while nothing else happens.
function goOn(mine) {
  if (mine !== turn) return;
  if (!found.rest(8)) setTimeout(() => goOn(mine), 0);
  else {
    showWords();
    showTable();
  }
}

function keepInAddress() {
  if (location.hash !== address) return readAddress(); // somebody changed it just now; the event is on its way
  try {
    if (address !== writeHash(state)) history.replaceState(null, "", writeHash(state));
    address = location.hash;
  } catch {
    // where a page may not change its address, the link to copy is right all the same
  }
}

function showWords() {
  const { headline, more } = verdict(found);
  if ($("verdict").textContent !== headline) $("verdict").textContent = headline;
  $("more").textContent = more.join(" ");
  $("python").textContent = snippet(state);
  $("variant-note").textContent = VARIANTS[state.variant].note;
  const preset = PRESETS.find(({ id }) => id === state.trainer);
  $("trainer").value = preset ? preset.id : "";
  $("trainer-notes").hidden = !preset;
  if (preset) {
    fill($("trainer-reading"), trainerNotes(preset, state));
    fill($("trainer-missing"), preset.not_modelled);
  }
  const flowing = found.dynamics.kind === "flow";
  $("cobweb-title").textContent = flowing ? "Push and pull" : "One step after another";
  $("cobweb-note").textContent = flowing
    ? "The reward pushes with Ω (solid), the KL term pulls back (dashed). p rises where the push is larger, until they are equal."
    : "Up to the curve, across to the diagonal, again. Crossings are fixed points. Click to start elsewhere.";
  const mark = found.limit.kind === "fixed_point" ? "▸ is where it ends. " : "";
  $("points-note").textContent = flowing
    ? `${mark}Small steps are stable where the multiplier of a whole step is below 1.`
    : `${mark}A step multiplies a small distance from a fixed point by its multiplier.`;
  const line = `${settingsLine(state)}. ${headline} ${more.join(" ")}`;
  $("cobweb").setAttribute("aria-label", `${flowing ? "Push and pull" : "Cobweb"} over p in log-odds. ${line}`);
  $("trajectory").setAttribute("aria-label", `Success probability over ${flowing ? "time" : "iterations"}. ${line}`);
  $("phase").setAttribute("aria-label", `Phase diagram of β and p_ref with the present settings marked. ${line}`);
}

function fill(list, lines) {
  list.replaceChildren(...lines.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

function showTable() {
  const { points, status } = found.fixed;
  const rows = points.map(({ L, multiplier, stable }) => {
    const row = document.createElement("tr");
    const ends = found.limit.kind === "fixed_point" && found.limit.L === L;
    const cells = [
      `${ends ? "▸ " : ""}${exact(L)}`,
      L.toFixed(4).replace("-", "−"),
      factor(multiplier),
      stable ? "stable" : "unstable",
    ];
    for (const [i, text] of cells.entries()) {
      const cell = Object.assign(document.createElement(i === 0 ? "th" : "td"), { textContent: text });
      if (i === 0) cell.scope = "row";
      if (i === 3) cell.className = text;
      row.append(cell);
    }
    return row;
  });
  $("points").replaceChildren(...rows);
  $("points-table").hidden = $("points-note").hidden = rows.length === 0;
  $("points-status").textContent = STATUS[status];
}

function drawPictures() {
  for (const [id, draw] of [
    ["cobweb", found.dynamics.kind === "flow" ? drawForces : drawCobweb],
    ["trajectory", drawTrajectory],
  ]) {
    const { width, height } = sizeOf($(id));
    draw($(id), found, width, height);
  }
  const { dynamics } = found;
  const model = {
    kind: dynamics.kind,
    divergence: dynamics.divergence,
    alpha: alphaOf(state),
    normalization: normalizationOf(state),
  };
  const { width, height } = sizeOf($("phase"));
  const resized = $("phase").getAttribute("width") !== String(width);
  if (resized) phase.resize(width, height);
  const key = [model.kind, model.divergence, model.alpha].join();
  if (resized || key !== planeKey.text || model.normalization !== planeKey.normalization) {
    planeKey = { text: key, normalization: model.normalization };
    phase.show({ ...model, normalization: tabulated(model.normalization) });
  }
  phase.mark(state.beta, dynamics.anchor);
}

function sizeOf(svg) {
  const width = Math.max(Math.floor(svg.parentElement.clientWidth), 240);
  return { width, height: Math.round(Math.min(Math.max(0.74 * width, 260), 400)) };
}

let lastWidth = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === lastWidth) return; // a phone's address bar came or went
  lastWidth = window.innerWidth;
  drawPictures();
});

function phaseColors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) =>
    style
      .getPropertyValue(name)
      .trim()
      .match(/[0-9a-f]{2}/gi)
      .map((part) => parseInt(part, 16));
  return {
    one: color("--one"),
    solved: color("--solved"),
    states: [null, color("--bistable"), color("--cycle"), color("--chaos")],
  };
}

function say(messages) {
  $("messages").replaceChildren(
    ...messages.map((text) => Object.assign(document.createElement("p"), { textContent: text })),
  );
}

// ---- start ----------------------------------------------------------------------------------------------------------

function readAndShow(hash) {
  const read = readHash(hash, PRESETS);
  say(read.problems);
  show(read.state);
}

const page = {
  milliseconds: 0,
  found: () => found,
  state: () => state,
  settled: () => phase.settled() && found.settled?.size === 2,
  address: writeHash,
};
window.explorer = page;

for (const { id, title } of PRESETS) $("trainer").append(new Option(title, id));
readAndShow(location.hash.length > 1 ? location.hash : $("first-state").textContent.trim());
showTheme();
page.firstPicture = performance.now();
