// The page of a bootstrap node: the whole network, live.

import { read } from './api.js';
import { h, show } from './dom.js';
import { calmly, follow, inTurn } from './live.js';
import { NetworkMap } from './map.js';
import { announceChanges, compare, figures, inOrder, showMembers, withExchanges } from './members.js';
import { notice, problem, whileUnreachable } from './notices.js';
import { general, network as texts } from './texts.js';

/** Nodes report what they exchanged every five seconds; its pulses are spread over that time. */
const REPORT = 5000;

const place = document.getElementById('page');
const map = new NetworkMap(['exchange']);
const numbers = h('div');
const table = h('div', { className: 'scroll', tabIndex: 0, role: 'group', 'aria-label': texts.table });
const drawing = h('section', { className: 'card' }, map.element);
let states = new Map();

const refresh = inTurn(async () => {
  try {
    const { nodes, exchanges } = await read('/network');
    withExchanges(nodes, exchanges);
    const sets = compare(nodes);
    const counted = (state) => `${nodes.filter((node) => node.state === state).length}`;
    show(numbers, figures([[texts.live, counted('alive')], [texts.dead, counted('dead')], [texts.left, counted('left')],
      [texts.sets, `${sets}`, sets > 1 ? texts.disagree : sets === 1 ? texts.agree : '']]));
    states = announceChanges(states, nodes);
    drawing.hidden = nodes.length === 0;
    map.draw(nodes);
    if (nodes.length) showMembers(table, inOrder(nodes));
    else show(table, notice(texts.empty, texts.emptyHint(location.origin), true));
  } catch (error) { if (states.size === 0) show(table, problem(error, refresh)); }
});

place.replaceChildren(h('h1', null, texts.title), h('p', { className: 'lead' }, texts.leadMap), numbers, drawing,
  h('section', { className: 'card' }, h('h2', null, texts.table), table));
whileUnreachable(general.offlineMap);
const soon = calmly(refresh);
follow('/events', {
  member: soon,
  exchanges: ({ from, to }) => {
    for (const other of to) setTimeout(() => map.pulse(from, other, 'exchange'), Math.random() * REPORT);
  },
}, soon);
setInterval(() => { if (!document.hidden) refresh(); }, 5000);
refresh();
