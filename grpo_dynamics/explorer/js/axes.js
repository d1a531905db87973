// Pictures in SVG: an element factory, scales, and axes for probabilities in log-odds and for powers of ten.

import { logit } from "./logodds.js";
import { brief } from "./words.js";

const NAMESPACE = "http://www.w3.org/2000/svg";

export function make(name, attributes = {}, ...children) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function scale([low, high], [from, to]) {
  const ratio = (to - from) / (high - low);
  const map = (value) => from + (value - low) * ratio;
  map.invert = (place) => low + (place - from) / ratio;
  return map;
}

export function linePath(points) {
  let path = "";
  for (const [x, y] of points) path += `${path ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  return path;
}

// Ticks at 0.5, 0.9, 0.99, … and 0.1, 0.01, …, with those between where there is room: [[L, label]].
export function probabilityTicks([low, high], room) {
  const all = [[0, "0.5", 1]];
  const most = Math.min(Math.max(12, Math.ceil(Math.max(-low, high) / Math.LN10)), 320);
  for (let k = 1; k <= most; k++) {
    const small = Number(`1e-${k}`);
    const L = k < 16 ? logit(small) : -k * Math.LN10;
    all.push([L, k < 4 ? String(small) : `10${superscript(k)}`, k % 2 === 1 ? 1 : 2]);
    all.push([-L, k < 4 ? (1 - small).toFixed(k) : `1−10${superscript(k)}`, k % 2 === 1 ? 1 : 2]);
  }
  for (const p of [0.2, 0.8]) all.push([logit(p), String(p), 3]);
  for (let k = 1; k <= 3; k++) {
    for (const digit of k === 1 ? [3, 4] : [2, 3, 5, 7]) {
      const p = Number(`${digit}e-${k}`);
      all.push([logit(p), String(p), 4], [-logit(p), (1 - p).toFixed(k), 4]);
    }
  }
  const inside = all.filter(([L]) => L >= low && L <= high);
  for (const least of [4, 3, 2]) {
    const kept = inside.filter(([, , rank]) => rank <= least).sort((a, b) => a[0] - b[0]);
    const gaps = kept.slice(1).map(([L], i) => ((L - kept[i][0]) / (high - low)) * room);
    if (Math.min(...gaps, Infinity) >= 1) return kept;
  }
  const kept = [];
  for (const tick of inside.filter(([, , rank]) => rank === 1).sort((a, b) => a[0] - b[0])) {
    if (!kept.length || ((tick[0] - kept[kept.length - 1][0]) / (high - low)) * room >= 1) kept.push(tick);
  }
  return kept;
}

function superscript(k) {
  return `⁻${[...String(k)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
}

export function powerTicks([low, high]) {
  const ticks = [];
  for (let k = Math.ceil(low - 1e-9); k <= high + 1e-9; k++) ticks.push([k, String(Number(`1e${k}`))]);
  return ticks;
}

// Round numbers from 0 to the end, about as many as there is room for.
export function niceTicks(end, room) {
  const raw = end / Math.max(Math.floor(room), 2);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((size) => size >= raw);
  const ticks = [];
  for (let i = 0; i * step <= end * (1 + 1e-9); i++) ticks.push([i * step, brief(i * step)]);
  return ticks;
}

// Both axes of a picture, with faint lines across it. ticks are [[value, label]].
export function drawAxes(svg, { x, y, box, xTicks, yTicks, xLabel, yLabel, lines = true }) {
  const [left, top, right, bottom] = box;
  const group = make("g", { class: "axes" });
  for (const [value, label] of xTicks) {
    const at = x(value).toFixed(1);
    group.append(make("line", { x1: at, x2: at, y1: lines ? top : bottom, y2: bottom + 4, class: "tick" }));
    group.append(make("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, label));
  }
  for (const [value, label] of yTicks) {
    const at = y(value).toFixed(1);
    group.append(make("line", { x1: left - 4, x2: lines ? right : left, y1: at, y2: at, class: "tick" }));
    group.append(make("text", { x: left - 8, y: Number(at) + 4, "text-anchor": "end" }, label));
  }
  group.append(make("path", { d: `M${left} ${top}V${bottom}H${right}`, class: "frame" }));
  group.append(make("text", { x: right, y: bottom + 36, "text-anchor": "end", class: "name" }, xLabel));
  group.append(make("text", { x: left - 8, y: top - 10, "text-anchor": "start", class: "name" }, yLabel));
  svg.append(group);
}

// A dot for a fixed point: filled where stable, open where not.
export function dot(x, y, stable) {
  return make("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 5, class: stable ? "stable" : "unstable" });
}

export function fresh(svg, width, height) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
}
