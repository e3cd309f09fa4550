// The network as a live drawing: members on rings, and a pulse along the edge for each call of one to another.
//
// A member's place follows from the order of ids alone, so it stays where it is when states change. Above LABELS members only the one that is
// pointed at has its name shown.
//
// There are three layers, of edges, pulses and members, for a browser paints a layer anew when anything in it changes: in most frames
// that is the one of the pulses alone.

import { h, show, svg } from './dom.js';
import { host } from './format.js';
import { shape } from './marks.js';
import { network as texts, state as states } from './texts.js';

const NARROW = matchMedia('(max-width: 44rem)').matches;
const WIDTH = NARROW ? 400 : 640;
const HEIGHT = NARROW ? 400 : 440;
const LABELS = 16;
const RING = 48;
/** Pulses under way at a time; beyond it an edge only lights up. */
const PULSES = 90;
/** Edges that glow at a time; beyond it a new one is not drawn. */
const EDGES = 150;
/** Milliseconds that a pulse travels, and that an edge glows after it where few and where many members are shown. */
const TRAVEL = 750;
const GLOW = [8000, 1600];
/** Milliseconds between two looks at how much an edge still glows. */
const FADE = 120;

const still = matchMedia('(prefers-reduced-motion: reduce)');

export class NetworkMap {
  /** A drawing in which pulses of these kinds will be seen. */
  constructor(kinds) {
    this.places = new Map();
    this.glow = GLOW[0];
    this.edges = new Map();
    this.pulses = new Set();
    this.running = false;
    this.paused = still.matches;
    this.lines = svg('g', { class: 'edges' });
    this.dots = svg('g', { class: 'pulses' });
    this.nodes = svg('g', { class: 'nodes' });
    const layer = (group) => svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}` }, group);
    this.picture = h('div', { className: 'map layers', role: 'img', 'aria-label': texts.drawing(0) }, layer(this.lines), layer(this.dots), layer(this.nodes));
    this.faded = 0;
    const pause = h('button', { type: 'button', className: 'quiet small' }, this.paused ? texts.resume : texts.pause);
    pause.addEventListener('click', () => {
      this.paused = !this.paused;
      show(pause, this.paused ? texts.resume : texts.pause);
      if (this.paused) this.clear();
    });
    this.element = h('div', { className: 'drawing' }, this.picture, h('div', { className: 'legend' }, legend(kinds), pause));
  }

  /** Draws these members: `{id, address, state, self}`. */
  draw(members) {
    const shown = [...members].sort((a, b) => (a.id < b.id ? -1 : 1));
    const drawn = shown.map((member) => `${member.id} ${member.state} ${member.address} ${member.self ?? ''}`).join();
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.picture.setAttribute('aria-label', texts.drawing(shown.length));
    const few = shown.length <= LABELS;
    this.glow = GLOW[few ? 0 : 1];
    this.places = places(shown.map((member) => member.id), few ? [NARROW ? 58 : 90, 56] : [20, 20]);
    const scale = few ? 1.4 : shown.length <= RING ? 0.9 : 0.6;
    this.nodes.replaceChildren(...shown.map((member) => this.node(member, scale, few)));
    for (const [key, edge] of this.edges) if (!this.places.has(edge.from) || !this.places.has(edge.to)) this.forget(key);
    for (const edge of this.edges.values()) edge.line.setAttribute('d', this.path(edge.from, edge.to));
  }

  node(member, scale, named) {
    const [x, y] = this.places.get(member.id);
    const name = host(member.address);
    const below = y >= HEIGHT / 2;
    const group = svg('g', { class: `node ${member.state}${member.self ? ' self' : ''}${named ? ' named' : ''}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` },
      svg('circle', { class: 'room', r: 15 * scale }),
      member.self ? svg('circle', { class: 'halo', r: 13.5 * scale }) : null,
      svg('path', { d: shape(member.state), transform: `scale(${scale})` }),
      svg('text', { y: below ? 34 : member.self ? -38 : -24 }, name),
      member.self ? svg('text', { class: 'soft', y: below ? 49 : -23 }, texts.self) : null,
      svg('title', null, `${name}: ${member.state}`));
    return group;
  }

  /** One member called another. */
  pulse(from, to, kind) {
    if (this.paused || from === to || !this.places.has(from) || !this.places.has(to)) return;
    const key = from < to ? from + to : to + from;
    let edge = this.edges.get(key);
    if (!edge) {
      if (this.edges.size >= EDGES) return;
      edge = { from, to, line: svg('path', { d: this.path(from, to), 'stroke-opacity': 0.1 }), until: 0 };
      this.edges.set(key, edge);
      this.lines.append(edge.line);
    }
    const now = performance.now();
    edge.until = now + this.glow;
    if (!still.matches && this.pulses.size < PULSES) {
      const dot = svg('circle', { class: `pulse ${kind}`, r: kind === 'exchange' ? 3.5 : 5 });
      this.dots.append(dot);
      this.pulses.add({ dot, from, to, start: now });
    }
    if (!this.running) { this.running = true; requestAnimationFrame((time) => this.step(time)); }
  }

  step(now) {
    for (const pulse of this.pulses) {
      const along = (now - pulse.start) / TRAVEL;
      if (along >= 1 || !this.places.has(pulse.from) || !this.places.has(pulse.to)) {
        pulse.dot.remove();
        this.pulses.delete(pulse);
        continue;
      }
      const [x, y] = this.point(pulse.from, pulse.to, Math.max(0, along));
      pulse.dot.setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    }
    if (now - this.faded > FADE) this.fade(now);
    this.running = this.edges.size > 0 && this.element.isConnected;
    if (this.running) requestAnimationFrame((time) => this.step(time));
  }

  fade(now) {
    this.faded = now;
    for (const [key, edge] of this.edges) {
      const left = (edge.until - now) / this.glow;
      if (left <= 0) this.forget(key);
      else edge.line.setAttribute('stroke-opacity', (0.1 + (this.glow === GLOW[0] ? 0.6 : 0.3) * left).toFixed(2));
    }
  }

  forget(key) {
    this.edges.get(key)?.line.remove();
    this.edges.delete(key);
  }

  clear() {
    for (const key of [...this.edges.keys()]) this.forget(key);
    for (const pulse of this.pulses) pulse.dot.remove();
    this.pulses.clear();
  }

  /** Edges bend towards the middle, so that those between neighbours are seen too. */
  bend(from, to) {
    const [[x1, y1], [x2, y2]] = [this.places.get(from), this.places.get(to)];
    return [x1, y1, (x1 + x2 + WIDTH / 2) / 3, (y1 + y2 + HEIGHT / 2) / 3, x2, y2];
  }

  path(from, to) {
    const [x1, y1, cx, cy, x2, y2] = this.bend(from, to).map((number) => number.toFixed(1));
    return `M${x1} ${y1}Q${cx} ${cy} ${x2} ${y2}`;
  }

  point(from, to, t) {
    const [x1, y1, cx, cy, x2, y2] = this.bend(from, to);
    const [a, b, c] = [(1 - t) ** 2, 2 * t * (1 - t), t ** 2];
    return [a * x1 + b * cx + c * x2, a * y1 + b * cy + c * y2];
  }
}

/** Places on as many rings as it takes to keep members apart; so much room is left beside and above. */
function places(ids, [aside, above]) {
  const rings = Math.max(1, Math.ceil(ids.length / RING));
  const found = new Map();
  const sizes = Array.from({ length: rings }, (_, ring) => 1 - 0.7 * (ring / Math.max(1, rings)));
  const all = sizes.reduce((sum, part) => sum + part, 0);
  let next = 0;
  sizes.forEach((part, ring) => {
    const here = ring === rings - 1 ? ids.length - next : Math.min(ids.length - next, Math.round(ids.length * part / all));
    for (let place = 0; place < here; place += 1, next += 1) {
      const angle = -Math.PI / 2 + (2 * Math.PI * (place + (ring % 2) / 2)) / here;
      const round = ids.length === 1 ? 0 : part;
      found.set(ids[next], [WIDTH / 2 + (WIDTH / 2 - aside) * round * Math.cos(angle), HEIGHT / 2 + (HEIGHT / 2 - above) * round * Math.sin(angle)]);
    }
  });
  return found;
}

function legend(kinds) {
  const picture = (child) => svg('svg', { viewBox: '-10 -10 20 20', 'aria-hidden': 'true' }, child);
  return h('div', null,
    h('ul', { 'aria-label': texts.states }, ['alive', 'suspect', 'dead', 'left'].map((state) => h('li', { className: state }, picture(svg('path', { d: shape(state) })), states[state]))),
    h('ul', { 'aria-label': texts.legend }, kinds.map((kind) => h('li', null, picture(svg('circle', { class: `pulse ${kind}`, r: 6 })), texts.kinds[kind]))));
}
