// The phase diagram: regimes as colours on a canvas, folds and flips as lines over it, and "you are here".

import { drawAxes, fresh, linePath, make, powerTicks, probabilityTicks, scale } from "./axes.js";
import { ONE, PLANE, curves, decide, regions } from "./plane.js";

const COARSE = [60, 45];
const FINE = [200, 150];
const SLICE = 4; // milliseconds of work between two looks at what the user does

export function phaseChart(canvas, svg, colors) {
  let pending = 0;
  let shown = null;

  function paint(plane) {
    canvas.width = plane.width;
    canvas.height = plane.height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(plane.width, plane.height);
    const { one, solved, states } = colors();
    for (let cell = 0; cell < plane.label.length; cell++) {
      const label = plane.label[cell];
      const share = plane.share[cell];
      const row = plane.height - 1 - Math.floor(cell / plane.width);
      const at = 4 * (row * plane.width + (cell % plane.width));
      for (let k = 0; k < 3; k++)
        image.data[at + k] = label === ONE ? one[k] + share * (solved[k] - one[k]) : states[label][k];
      image.data[at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    shown = plane;
  }

  // Coarse at once; what orbits decide, and the fine grid, while nothing else is to do.
  function show(model) {
    const turn = ++pending;
    const coarse = regions(model, ...COARSE);
    decideFor(coarse, SLICE);
    paint(coarse);
    let fine = null;
    const go = () => {
      if (turn !== pending) return;
      if (coarse.waiting.length) decideFor(coarse, SLICE);
      else if (!fine) fine = regions(model, ...FINE);
      else decideFor(fine, SLICE);
      if (fine && !fine.waiting.length) paint(fine);
      else {
        if (!fine && !coarse.waiting.length) paint(coarse);
        setTimeout(go, 0);
      }
    };
    setTimeout(go, 60);
    drawCurves(model);
  }

  function decideFor(plane, milliseconds) {
    const end = performance.now() + milliseconds;
    while (plane.waiting.length && performance.now() < end) decide(plane, plane.waiting.pop());
  }

  let axes = null;
  let marker = null;
  let lines = null;

  function resize(width, height) {
    fresh(svg, width, height);
    const box = [58, 26, width - 14, height - 44];
    const [left, top, right, bottom] = box;
    Object.assign(canvas.style, {
      left: `${left}px`,
      top: `${top}px`,
      width: `${right - left}px`,
      height: `${bottom - top}px`,
    });
    const range = PLANE.beta.map(Math.log10);
    axes = { x: scale(PLANE.L, [left, right]), y: scale(range, [bottom, top]), box };
    drawAxes(svg, {
      ...axes,
      xTicks: probabilityTicks(PLANE.L, (right - left) / 46),
      yTicks: powerTicks(range),
      xLabel: "p_ref",
      yLabel: "β",
      lines: false,
    });
    const shape = make("clipPath", { id: "phase-clip" });
    shape.append(make("rect", { x: left, y: top, width: right - left, height: bottom - top }));
    lines = make("g", { "clip-path": "url(#phase-clip)" });
    marker = make("g", { class: "here" });
    svg.append(shape, lines, marker);
  }

  function drawCurves(model) {
    const { fold, flip } = curves(model);
    lines.replaceChildren();
    const place = ([L, beta]) => [axes.x(Math.min(Math.max(L, -80), 80)), axes.y(Math.log10(beta))];
    if (fold.length) lines.append(make("path", { d: linePath(fold.map(place)), class: "fold" }));
    if (flip.length) lines.append(make("path", { d: linePath(flip.map(place)), class: "flip" }));
  }

  function mark(beta, anchor) {
    const [left, top, right, bottom] = axes.box;
    const x = Math.min(Math.max(axes.x(anchor), left), right);
    const y = Math.min(Math.max(axes.y(Math.log10(beta)), top), bottom);
    const side = x > 0.7 * right ? "end" : "start";
    marker.replaceChildren(
      make("path", { d: `M${left} ${y}H${right}M${x} ${top}V${bottom}`, class: "cross" }),
      make("circle", { cx: x, cy: y, r: 7 }),
      make(
        "text",
        { x: x + (side === "end" ? -13 : 13), y: y + (y < top + 24 ? 22 : -10), "text-anchor": side },
        "you are here",
      ),
    );
  }

  // β and the log-odds of p_ref under a pointer, as the state has them.
  function under(event) {
    const at = svg.getBoundingClientRect();
    const [left, top, right, bottom] = axes.box;
    const x = Math.min(Math.max(event.clientX - at.left, left), right);
    const y = Math.min(Math.max(event.clientY - at.top, top), bottom);
    return { beta: 10 ** axes.y.invert(y), L: axes.x.invert(x) };
  }

  return {
    show,
    resize,
    mark,
    under,
    repaint: () => shown && paint(shown),
    settled: () => shown !== null && shown.width === FINE[0],
  };
}
