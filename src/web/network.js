// The network as this node knows it: a live drawing, a table, and the two things to do about members.

import { ask, read } from './api.js';
import { confirmed, h, show, toast } from './dom.js';
import { host, size, span } from './format.js';
import { calmly, follow, inTurn } from './live.js';
import { NetworkMap } from './map.js';
import { announceChanges, compare, figures, inOrder, showMembers, withExchanges } from './members.js';
import { notice, problem, why } from './notices.js';
import { general, network as texts } from './texts.js';

export function networkView(place) {
  const map = new NetworkMap(['exchange', 'rumor', 'payload', 'messages']);
  const numbers = h('div');
  const table = h('div', { className: 'scroll', tabIndex: 0, role: 'group', 'aria-label': texts.table }, general.loading);
  const alone = h('div', { hidden: true }, notice(texts.alone, texts.aloneHint));
  let members = [];
  let surveying = false;
  let states = new Map();
  let said = new Map();
  place.append(h('h1', { tabIndex: -1 }, texts.title), h('p', { className: 'lead' }, texts.lead), numbers,
    h('section', { className: 'card' }, map.element), h('section', { className: 'card' }, h('h2', null, texts.table), table, alone), introduction(() => refresh()));

  async function forget(member) {
    const name = host(member.address);
    if (!await confirmed(texts.forgetTitle(name), texts.forgetText, texts.forget, general.cancel)) return;
    try {
      await ask(`/members/${member.id}`, { method: 'DELETE' });
      toast(texts.forgotten(name));
      refresh();
    } catch (error) { toast(general.failed(why(error))); }
  }

  // What members say of themselves is asked with every look, not with every hint: the node asks them, so it takes a moment longer.
  async function survey() {
    const { nodes, exchanges } = await read('/network');
    withExchanges(nodes, exchanges);
    return new Map(nodes.map((node) => [node.id, node]));
  }

  const refresh = inTurn(async () => {
    try {
      const asked = surveying ? survey().catch(() => said) : said;
      surveying = false;
      const [known, status, told] = await Promise.all([read('/members'), read('/status'), asked]);
      said = told;
      members = known.members.filter((member) => member.state !== 'forgotten');
      states = announceChanges(states, members);
      map.draw(members);
      const rows = inOrder(members).map((member) => ({ ...said.get(member.id), ...member }));
      compare(rows);
      showMembers(table, rows, forget);
      alone.hidden = members.length !== 1;
      show(numbers, figures([
        [texts.live, `${status.live_members}`], [texts.blobs, `${status.blobs}`], [texts.here, size(status.payload_bytes)],
        [texts.wanted, `${status.wanted}`], [texts.uptime, span(status.uptime)],
      ]));
    } catch (error) { if (members.length === 0) show(table, problem(error, refresh)); }
  });

  function look() { surveying = true; refresh(); }

  const soon = calmly(refresh);
  const stop = follow('/events', {
    member: soon,
    exchange: ({ from, to, kind }) => map.pulse(from, to, kind),
  }, soon);
  const timer = setInterval(() => { if (!document.hidden) look(); }, 5000);
  // What the node itself knows stands there at once.
  refresh();
  look();
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
