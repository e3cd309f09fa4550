// On how many nodes a blob is, live: asked again while it spreads, and whenever the node hears of a holder.

import { read } from './api.js';
import { h, show } from './dom.js';
import { spread as texts } from './texts.js';

/** How long to wait between questions while some node has not got it, in milliseconds. */
const PAUSES = [300, 500, 700, 1000, 1500, 2000, 3000, 5000];

/** Follows the holders of a blob; `heard` gets each answer. Gives `ask`, to ask at once, and `stop`. */
export function holders(id, heard) {
  let timer = 0;
  let asked = 0;
  let stopped = false;
  async function ask() {
    clearTimeout(timer);
    try {
      const answer = await read(`/blobs/${id}/holders`);
      if (stopped) return;
      heard(answer);
      if (answer.holders.length >= answer.members) return;
    } catch (error) {
      if (stopped || error.status === 404 || error.status === 410) return;
      heard(null);
    }
    timer = setTimeout(ask, PAUSES[Math.min(asked++, PAUSES.length - 1)]);
  }
  ask();
  return { ask: () => { asked = 0; ask(); }, stop: () => { stopped = true; clearTimeout(timer); } };
}

/** A row of dots, one a node, that fill as the blob spreads, and the same in words. */
export function spreadMeter() {
  const dots = h('span', { className: 'dots', 'aria-hidden': 'true' });
  const words = h('span', null, texts.asking);
  const element = h('span', { className: 'spread' }, dots, words);
  const heard = (answer) => {
    if (!answer) { show(words, texts.unknown); return; }
    const [here, all] = [answer.holders.length, Math.max(answer.members, answer.holders.length)];
    show(words, texts.on(here, all));
    element.classList.toggle('all', here >= all);
    const drawn = Math.min(all, 24);
    const full = all > drawn ? Math.floor((here / all) * drawn) : here;
    while (dots.childElementCount > drawn) dots.lastChild.remove();
    while (dots.childElementCount < drawn) dots.append(h('i'));
    [...dots.children].forEach((dot, place) => dot.classList.toggle('full', place < full));
  };
  return { element, heard };
}
