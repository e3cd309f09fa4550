// The network as this node knows it: a live drawing, a table, and the two things to do about members.

import { ask, read } from './api.js';
import { confirmed, h, show, toast } from './dom.js';
import { host, size, span } from './format.js';
import { calmly, follow } from './live.js';
import { NetworkMap } from './map.js';
import { announceChanges, compare, figures, inOrder, memberTable, withExchanges } from './members.js';
import { notice, problem, why } from './notices.js';
import { general, network as texts } from './texts.js';

export function networkView(place) {
  const map = new NetworkMap(['exchange', 'rumor', 'payload', 'messages']);
  const numbers = h('div');
  const table = h('div', { className: 'scroll', tabIndex: 0, role: 'group', 'aria-label': texts.table }, general.loading);
  let members = [];
  let states = new Map();
  let said = new Map();
  place.append(h('h1', { tabIndex: -1 }, texts.title), h('p', { className: 'lead' }, texts.lead), numbers,
    h('section', { className: 'card' }, map.element), h('section', { className: 'card' }, h('h2', null, texts.table), table), introduction(refresh));

  async function forget(member) {
    const name = host(member.address);
    if (!await confirmed(texts.forgetTitle(name), texts.forgetText, texts.forget, general.cancel)) return;
    try {
      await ask(`/members/${member.id}`, { method: 'DELETE' });
      toast(texts.forgotten(name));
      refresh();
    } catch (error) { toast(general.failed(why(error))); }
  }

  function list() {
    const rows = inOrder(members).map((member) => ({ ...said.get(member.id), ...member }));
    compare(rows);
    show(table, memberTable(rows, forget), members.length === 1 ? notice(texts.alone, texts.aloneHint) : null);
  }

  async function refresh() {
    try {
      const [known, status] = await Promise.all([read('/members'), read('/status')]);
      members = known.members.filter((member) => member.state !== 'forgotten');
      states = announceChanges(states, members);
      map.draw(members);
      list();
      show(numbers, figures([
        [texts.live, `${status.live_members}`], [texts.blobs, `${status.blobs}`], [texts.here, size(status.payload_bytes)],
        [texts.wanted, `${status.wanted}`], [texts.uptime, span(status.uptime)],
      ]));
    } catch (error) { if (members.length === 0) show(table, problem(error, refresh)); }
  }

  /** What members say of themselves: the node asks them, so it takes a moment longer. */
  async function survey() {
    try {
      const { nodes, exchanges } = await read('/network');
      withExchanges(nodes, exchanges);
      said = new Map(nodes.map((node) => [node.id, node]));
      if (members.length) list();
    } catch { /* The banner tells that the node does not answer. */ }
  }

  const soon = calmly(refresh);
  const stop = follow('/events', {
    member: soon,
    exchange: ({ from, to, kind }) => map.pulse(from, to, kind),
  }, soon);
  const timer = setInterval(() => { if (!document.hidden) { refresh(); survey(); } }, 5000);
  refresh();
  survey();
  return () => { stop(); clearInterval(timer); };
}

function introduction(done) {
  const address = h('input', { type: 'url', required: true, placeholder: 'http://10.0.0.2:7701', autocomplete: 'off' });
  const form = h('form', { className: 'row' }, h('label', { className: 'grow' }, texts.address, address), h('button', null, texts.add));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    try {
      const answer = await ask('/members', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ address: address.value }) });
      toast(answer.status === 202 ? texts.notYet(address.value) : texts.added(address.value));
      form.reset();
      done();
    } catch (error) { toast(general.failed(why(error))); }
  });
  return h('section', { className: 'card' }, h('h2', null, texts.introduce), form);
}
