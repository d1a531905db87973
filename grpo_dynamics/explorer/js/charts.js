// The cobweb and the trajectory. Both have the same axis of probabilities, in log-odds.

import { drawAxes, dot, fresh, linePath, make, niceTicks, probabilityTicks, scale } from "./axes.js";
import { short } from "./words.js";

// The part of the line that a picture shows: the start, and the reference, orbits and fixed points not too far off.
export function shownRange({ dynamics, start, orbit, fixed, limit }) {
  const within = (L) => Math.min(Math.max(L, Math.min(-16, start)), Math.max(9, start));
  const seen = [dynamics.anchor, start, ...orbit, ...(Number.isFinite(limit.L) ? [limit.L] : [9])];
  for (const { L } of fixed.points) if (L < 9) seen.push(L);
  const [low, high] = [Math.min(...seen.map(within)), Math.max(...seen.map(within))];
  const margin = Math.max(0.06 * (high - low), 0.8 - 0.25 * (high - low), 0.25);
  return [low - margin, high + margin];
}

export function drawCobweb(svg, found, width, height) {
  fresh(svg, width, height);
  const { dynamics, start, orbit, fixed, range } = found;
  const box = [58, 26, width - 14, height - 44];
  const [left, top, right, bottom] = box;
  const x = scale(range, [left, right]);
  const y = scale(range, [bottom, top]);
  drawAxes(svg, {
    ...{ x, y, box },
    xTicks: probabilityTicks(range, (right - left) / 46),
    yTicks: probabilityTicks(range, (bottom - top) / 22),
    xLabel: "p before a step",
    yLabel: "p after it",
  });
  const clipped = clip(svg, "cobweb-clip", box);
  clipped.append(
    make("line", { x1: x(range[0]), y1: y(range[0]), x2: x(range[1]), y2: y(range[1]), class: "diagonal" }),
  );
  const anchor = x(dynamics.anchor);
  clipped.append(make("line", { x1: anchor, x2: anchor, y1: top, y2: bottom, class: "reference" }));
  const curve = [];
  const count = Math.round((right - left) / 2);
  for (let i = 0; i <= count; i++) {
    const L = range[0] + ((range[1] - range[0]) * i) / count;
    curve.push([x(L), Math.min(Math.max(y(dynamics.step(L)), -1e4), 1e4)]);
  }
  clipped.append(make("path", { d: linePath(curve), class: "map" }));
  drawSteps(clipped, x, y, start, orbit);
  drawPoints(svg, fixed, range, (L) => [x(L), y(L)], box);
  if (start >= range[0] && start <= range[1]) {
    svg.append(make("circle", { cx: x(start), cy: bottom, r: 4.5, class: "start" }));
  }
  svg.append(make("text", { x: anchor + 5, y: top + 11, class: "note" }, anchor < right - 40 ? "p_ref" : ""));
}

function clip(svg, id, [left, top, right, bottom]) {
  const shape = make("clipPath", { id });
  shape.append(make("rect", { x: left, y: top, width: right - left, height: bottom - top }));
  const group = make("g", { "clip-path": `url(#${id})` });
  svg.append(shape, group);
  return group;
}

function drawSteps(group, x, y, start, orbit) {
  const bound = (value) => Math.min(Math.max(value, -1e4), 1e4);
  const points = [[x(start), y(-60)]];
  for (let n = 0; n + 1 < orbit.length && n < 120; n++) {
    points.push([bound(x(orbit[n])), bound(y(orbit[n + 1]))], [bound(x(orbit[n + 1])), bound(y(orbit[n + 1]))]);
  }
  group.append(make("path", { d: linePath(points.map(([a, b]) => [bound(a), bound(b)])), class: "steps" }));
}

// A flow has no jumps. What pushes up, Ω, and what the KL term pulls back with, βR/(p(1−p)), balance at fixed points.
export function drawForces(svg, found, width, height) {
  fresh(svg, width, height);
  const { dynamics, start, fixed, range, path } = found;
  const box = [58, 26, width - 14, height - 44];
  const [left, top, right, bottom] = box;
  const x = scale(range, [left, right]);
  const places = Array.from({ length: 161 }, (_, i) => range[0] + ((range[1] - range[0]) * i) / 160);
  const push = places.map((L) => dynamics.normalization.gap(L));
  const most =
    1.25 *
    Math.max(
      ...push.filter(Number.isFinite),
      ...fixed.points.filter(({ L }) => L < range[1]).map(({ L }) => dynamics.normalization.gap(L)),
    );
  const y = scale([Math.min(0, -0.12 * most), most], [bottom, top]);
  drawAxes(svg, {
    ...{ x, y, box },
    xTicks: probabilityTicks(range, (right - left) / 46),
    yTicks: niceTicks(most, (bottom - top) / 44),
    xLabel: "p",
    yLabel: "push, pull",
  });
  const clipped = clip(svg, "cobweb-clip", box);
  const curve = (values) => linePath(values.map((value, i) => [x(places[i]), Math.min(Math.max(y(value), -1e4), 1e4)]));
  const anchor = x(dynamics.anchor);
  clipped.append(make("line", { x1: anchor, x2: anchor, y1: top, y2: bottom, class: "reference" }));
  clipped.append(make("path", { d: curve(push), class: "map" }));
  clipped.append(make("path", { d: curve(places.map((L) => dynamics.beta * dynamics.restoring(L))), class: "pull" }));
  clipped.append(make("line", { x1: x(start), x2: x(path[path.length - 1][1]), y1: y(0), y2: y(0), class: "slide" }));
  drawPoints(svg, fixed, range, (L) => [x(L), y(dynamics.normalization.gap(L))], box);
  if (start >= range[0] && start <= range[1])
    svg.append(make("circle", { cx: x(start), cy: y(0), r: 4.5, class: "start" }));
  svg.append(make("text", { x: anchor + 5, y: top + 11, class: "note" }, anchor < right - 40 ? "p_ref" : ""));
}

// Fixed points; those beyond the picture as an arrow at its edge.
function drawPoints(svg, { points }, range, place, [, top, right]) {
  for (const { L, stable } of points) {
    if (L >= range[0] && L <= range[1]) svg.append(dot(...place(L), stable));
  }
  const beyond = points.filter(({ L, stable }) => L > range[1] && stable);
  if (beyond.length) {
    const words = `stable state at ${short(beyond[0].L)} ↗`;
    svg.append(make("text", { x: right, y: top - 10, "text-anchor": "end", class: "note" }, words));
  }
}

export function drawTrajectory(svg, found, width, height) {
  fresh(svg, width, height);
  const { dynamics, fixed, range, path } = found;
  const box = [58, 26, width - 14, height - 44];
  const [left, top, right, bottom] = box;
  const end = path[path.length - 1][0];
  const x = scale([0, end], [left + 6, right]);
  const y = scale(range, [bottom, top]);
  drawAxes(svg, {
    ...{ x, y, box },
    xTicks: niceTicks(end, (right - left) / 60),
    yTicks: probabilityTicks(range, (bottom - top) / 22),
    xLabel: dynamics.kind === "flow" ? "time" : "iteration n",
    yLabel: dynamics.kind === "flow" ? "p" : "p after n iterations",
  });
  const clipped = clip(svg, "trajectory-clip", box);
  for (const { L, stable } of fixed.points) {
    if (L < range[0] || L > range[1]) continue;
    clipped.append(
      make("line", { x1: left, x2: right, y1: y(L), y2: y(L), class: stable ? "level" : "level unstable-level" }),
    );
  }
  const anchor = y(dynamics.anchor);
  clipped.append(make("line", { x1: left, x2: right, y1: anchor, y2: anchor, class: "reference" }));
  svg.append(make("text", { x: right, y: anchor - 5, "text-anchor": "end", class: "note" }, "p_ref"));
  const points = path.map(([t, L]) => [x(t), Math.min(Math.max(y(L), -1e4), 1e4)]);
  clipped.append(make("path", { d: linePath(points), class: "orbit" }));
  if (dynamics.kind === "recursion" && points.length <= 130) {
    for (const [a, b] of points)
      clipped.append(make("circle", { cx: a.toFixed(1), cy: b.toFixed(1), r: 2.6, class: "state" }));
  }
}
