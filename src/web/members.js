// Members as a table: what the drawing shows, for those who read.

import { announce, arrange, h, keepFocus, show } from './dom.js';
import { ago, brief, count, date, host, size, tame } from './format.js';
import { mark } from './marks.js';
import { network as texts } from './texts.js';

const ROWS = 200;

/** Members are asked, or report, every five seconds: what one said so many milliseconds before the latest is not of the same round. */
const ROUND = 5000;

const number = (value, shown) => (value === undefined || value === null ? texts.unsaid : shown(value));

/** When something was, as people say it, with the exact time to be had. */
export const when = (time) => h('time', { dateTime: time, title: date(time), className: 'ago' }, ago(time));

// What was just now is a while ago later.
setInterval(() => { for (const time of document.querySelectorAll('time.ago')) show(time, ago(time.dateTime)); }, 20000);

function link(member) {
  // What a member says of its address was checked by the node, and is looked at once more before it can be clicked.
  const name = host(member.address);
  return /^https?:\/\/[^\s/@]+$/.test(member.address) ? h('a', { href: `${member.address}/`, rel: 'noreferrer' }, name) : name;
}

/** What a table tells of each member beyond its state and the node itself. */
const COLUMNS = ['incarnation', 'version', 'blobs', 'bytes', 'lag', 'exchange'];

/**
 * Finds out how far behind each living member is, by what it said of itself: the `lag` of a member is what it lacks, in words; it is `old` if
 * others have spoken a round later.
 * Gives how many sets of records there are among them.
 */
export function compare(members) {
  const said = members.filter((member) => member.state === 'alive' && member.root);
  const sets = new Map();
  for (const { root } of said) sets.set(root, (sets.get(root) ?? 0) + 1);
  const common = [...sets].sort((a, b) => b[1] - a[1])[0]?.[0];
  const records = Math.max(0, ...said.map((member) => member.records));
  const messages = new Map();
  for (const member of said) messages.set(member.history, Math.max(member.messages, messages.get(member.history) ?? 0));
  const latest = Math.max(...said.map((member) => Date.parse(member.reported)));
  for (const member of members) member.lag = null;
  for (const member of said) {
    const behind = messages.get(member.history) - member.messages;
    member.lag = [
      member.root === common ? null : member.records < records ? texts.lacksRecords(records - member.records) : texts.differs,
      member.wanted ? texts.lacksPayloads(member.wanted) : null,
      behind ? texts.lacksMessages(behind) : null,
    ].filter(Boolean);
    member.old = latest - Date.parse(member.reported) > ROUND;
  }
  return sets.size;
}

/** Gives each member the time of the last exchange that is known of it. */
export function withExchanges(members, exchanges) {
  const last = new Map();
  for (const { from, to, last_seen: seen } of exchanges) for (const id of [from, to]) if (!(last.get(id) > seen)) last.set(id, seen);
  for (const member of members) member.exchanged = last.get(member.id);
}

/** A table of these members. */
function memberTable(members, forget) {
  const cells = {
    incarnation: ['number', (member) => count(member.incarnation)],
    version: ['', (member) => tame(member.version ?? texts.unsaid)],
    blobs: ['number', (member) => number(member.blobs, count)],
    bytes: ['number', (member) => number(member.payload_bytes, size)],
    lag: ['lag', (member) => (member.lag ? [
      h('span', { className: member.lag.length ? 'warn' : 'calm' }, member.lag.join(', ') || texts.inStep),
      member.old ? h('span', { className: 'soft small' }, ` ${texts.said} `, when(member.reported)) : null,
    ] : texts.unsaid)],
    exchange: ['', (member) => (member.exchanged ? when(member.exchanged) : texts.none)],
  };
  const row = (member) => h('tr', { 'data-id': member.id, 'data-state': member.state },
    h('td', null, mark(member.state), member.state === 'alive' ? null : h('span', { className: 'soft small silent' }, member.last_seen ? [`${texts.heard} `, when(member.last_seen)] : texts.never)),
    h('th', { scope: 'row' }, link(member), member.self ? h('span', { className: 'chip' }, texts.self) : null, h('code', { className: 'soft', title: member.id }, brief(member.id))),
    COLUMNS.map((column) => h('td', { className: cells[column][0], 'data-label': texts[column] }, cells[column][1](member))),
    forget ? h('td', { className: 'act' }, member.state === 'dead' || member.state === 'left'
      ? h('button', { type: 'button', className: 'quiet small', 'aria-label': texts.forgetLabel(host(member.address)), onclick: () => forget(member) }, texts.forget) : null) : null);
  const shown = members.slice(0, ROWS);
  return h('div', null,
    h('table', { className: 'members' },
      h('caption', { className: 'unseen' }, texts.table),
      h('thead', null, h('tr', null,
        h('th', { scope: 'col' }, texts.state), h('th', { scope: 'col' }, texts.node),
        COLUMNS.map((column) => h('th', { scope: 'col', className: cells[column][0] }, texts[column])),
        forget ? h('td', null) : null)),
      h('tbody', null, shown.map(row))),
    h('p', { className: 'soft', hidden: members.length <= ROWS }, texts.more(members.length - ROWS)));
}

/** What is drawn is kept where the new one reads the same. Gives what is to stand there. */
const kept = (drawn, fresh) => (drawn?.isEqualNode(fresh) ? drawn : fresh);

/**
 * Shows these members in `place`; `forget` is called for one that is to be forgotten. Rows stay, and of a row the cells that read as before, so
 * that what has the focus keeps it.
 */
export function showMembers(place, members, forget) {
  const fresh = memberTable(members, forget);
  const body = place.querySelector('.members tbody');
  if (!body) { show(place, fresh); return; }
  const drawn = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  keepFocus(place, () => {
    arrange(body, [...fresh.querySelector('tbody').rows].map((row) => {
      const before = drawn.get(row.dataset.id);
      if (!before) return row;
      before.dataset.state = row.dataset.state;
      arrange(before, [...row.cells].map((cell, column) => kept(before.cells[column], cell)));
      return before;
    }));
    const note = place.querySelector('.members + p');
    note.replaceWith(kept(note, fresh.lastChild));
  });
}

/** Says which members are in another state than before; gives the states of now. */
export function announceChanges(before, members) {
  for (const { id, address, state } of members) {
    if (before.has(id) && before.get(id) !== state) announce(texts.changed(host(address), state));
  }
  return new Map(members.map(({ id, state }) => [id, state]));
}

/** Figures in a row. */
export const figures = (entries) => h('dl', { className: 'figures' },
  entries.map(([name, value, note]) => h('div', null, h('dt', null, name), h('dd', null, value, note ? h('small', null, ` ${note}`) : null))));

const RANK = { alive: 0, suspect: 1, dead: 2, left: 3, forgotten: 4 };

/** The node itself first, then the living, then the others; each by address. */
export const inOrder = (members) => [...members].sort((a, b) =>
  Number(b.self ?? false) - Number(a.self ?? false) || RANK[a.state] - RANK[b.state] || a.address.localeCompare(b.address, 'en', { numeric: true }));
