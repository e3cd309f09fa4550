// The message history of this node: live, and a place to say something.

import { ask, read } from './api.js';
import { announce, h, show, toast } from './dom.js';
import { brief, clock, date } from './format.js';
import { follow } from './live.js';
import { notice, problem, why } from './notices.js';
import { general, messages as texts } from './texts.js';

/** Messages asked for at a time, newest first. */
const PAGE = 50;

export function messagesView(place) {
  const history = h('ol', { className: 'history', tabIndex: 0, 'aria-label': texts.history });
  const waiting = h('ol', { className: 'history pending' });
  const earlier = h('button', { type: 'button', className: 'quiet small', hidden: true }, texts.earlier);
  const said = h('p', { className: 'soft', role: 'status' });
  const empty = h('div', null, h('p', { className: 'soft' }, general.loading));
  place.append(h('h1', { tabIndex: -1 }, texts.title), h('p', { className: 'lead' }, texts.lead),
    h('section', { className: 'card' }, h('div', { className: 'row between' }, h('h2', null, texts.history), said), earlier, empty, history, waiting),
    form(pending));

  const seen = new Set();
  let first = 0;
  let me = '';
  let last = '0';
  let stop = () => {};
  let stopped = false;

  function add(message) {
    if (seen.has(message.id)) return;
    seen.add(message.id);
    last = message.cursor;
    show(empty);
    const atEnd = history.scrollHeight - history.scrollTop - history.clientHeight < 80;
    history.append(entry(message));
    if (atEnd) history.scrollTop = history.scrollHeight;
    pending();
  }

  /** A cursor names a place in this node's order and the node; so the newest page begins a page before the end. */
  async function page(before) {
    const from = Math.max(0, before - PAGE);
    if (before <= 0) return [];
    const answer = await read(`/messages?limit=${before - from}${from > 0 ? `&after=${from}.${me}` : ''}`);
    first = from;
    earlier.hidden = from === 0;
    return answer.messages;
  }

  async function load() {
    try {
      const status = await read('/status');
      if (stopped) return;
      me = status.id;
      tell(status);
      const newest = await page(status.history.messages);
      if (stopped) return;
      show(empty, newest.length ? null : notice(texts.none, texts.noneHint));
      newest.forEach(add);
      history.scrollTop = history.scrollHeight;
      pending();
      stop();
      stop = follow(() => `/messages/stream?after=${encodeURIComponent(last)}`, { message: (message) => { add(message); if (message.origin !== me) announce(message.body); } }, refresh);
    } catch (error) { if (!stopped) show(empty, problem(error, load)); }
  }

  function tell({ epoch, synchronised }) {
    if (epoch.role === 'none') show(said, texts.noHistory);
    else show(said, synchronised ? texts.status(epoch.voters.length, epoch.role) : texts.behind);
  }

  async function refresh() {
    try { tell(await read('/status')); } catch { /* The banner tells that the node does not answer. */ }
    pending();
  }

  async function pending() {
    try {
      const { messages } = await read('/messages?status=pending&limit=50');
      show(waiting, ...messages.filter((message) => !seen.has(message.id)).map(entry));
      if (messages.length) show(empty);
    } catch { /* As above. */ }
  }

  earlier.addEventListener('click', async () => {
    try {
      const older = await page(first);
      history.prepend(...older.filter((message) => !seen.has(message.id)).map((message) => { seen.add(message.id); return entry(message); }));
    } catch (error) { toast(general.failed(why(error))); }
  });
  load();
  const timer = setInterval(() => { if (!document.hidden) refresh(); }, 3000);
  return () => { stopped = true; clearInterval(timer); stop(); };
}

function entry(message) {
  const ordered = message.channel === 'ordered';
  const body = message.encoding === 'base64' ? texts.binary(Math.floor((message.body.length * 3) / 4)) : message.body;
  const isPending = message.status === 'pending';
  return h('li', { className: `message ${message.channel}${isPending ? ' waits' : ''}`, 'data-id': message.id },
    h('p', { className: 'body' }, body),
    h('p', { className: 'soft' },
      isPending ? h('span', { className: 'chip warn' }, texts.pending) : ordered ? h('span', { className: 'chip good' }, texts.ordered1(message.number)) : null,
      ordered && !isPending ? `${texts.slot(message.slot)} · ` : null,
      `${texts.from} ${brief(message.origin)} · `, h('time', { dateTime: message.sent, title: date(message.sent) }, clock(message.sent))));
}

function form(posted) {
  const text = h('textarea', { rows: 2, maxLength: 65536 });
  const channel = h('select', null, h('option', { value: 'causal' }, texts.causal), h('option', { value: 'ordered' }, texts.ordered));
  const state = h('p', { className: 'soft', role: 'status' });
  const post = async (event) => {
    event.preventDefault();
    if (!text.value.trim()) { show(state, texts.empty); text.focus(); return; }
    try {
      const taken = await (await ask(`/messages?channel=${channel.value}`, { method: 'POST', headers: { 'content-type': 'text/plain; charset=utf-8' }, body: text.value })).json();
      text.value = '';
      show(state, taken.status === 'delivered' ? texts.arrived : texts.accepted);
      posted();
      settle(taken.id, state);
    } catch (error) { show(state, general.failed(why(error))); }
  };
  text.addEventListener('keydown', (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) post(event); });
  return h('form', { className: 'card say', onsubmit: post },
    h('label', null, texts.say, text),
    h('div', { className: 'row' }, h('label', { className: 'grow' }, texts.channel, channel), h('button', null, texts.post)), state);
}

/** Tells what became of a message that was taken. */
async function settle(id, state) {
  for (let pause = 200; state.isConnected; pause = Math.min(pause * 2, 5000)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    try {
      const message = await read(`/messages/${encodeURIComponent(id)}`);
      if (message.status === 'delivered') { show(state, texts.arrived); return; }
      show(state, texts.waiting);
    } catch { /* The banner tells that the node does not answer. */ }
  }
}
