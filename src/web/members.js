// Members as a table: what the drawing shows, for those who read.

import { h, show } from './dom.js';
import { ago, brief, count, date, host, size } from './format.js';
import { mark } from './marks.js';
import { network as texts } from './texts.js';

const ROWS = 200;

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

/** A table of these members. `columns` names those beyond state and node; `forget` is called for one that is to be forgotten. */
export function memberTable(members, columns, forget) {
  const cells = {
    incarnation: ['number', (member) => count(member.incarnation)],
    records: ['number', (member) => number(member.records, count)],
    bytes: ['number', (member) => number(member.payload_bytes, size)],
    set: ['', (member) => (member.root ? h('span', { className: member.same ? 'calm' : 'warn' }, member.same ? texts.same : texts.differs) : texts.unsaid)],
    heard: ['', (member) => (member.self ? '' : member.last_seen ? when(member.last_seen) : texts.never)],
    exchange: ['', (member) => (member.self ? '' : member.exchanged ? when(member.exchanged) : texts.none)],
  };
  const row = (member) => h('tr', { 'data-id': member.id, 'data-state': member.state },
    h('td', null, mark(member.state)),
    h('th', { scope: 'row' }, link(member), ' ', h('code', { className: 'soft', title: member.id }, brief(member.id)), member.self ? h('span', { className: 'chip' }, texts.self) : null),
    columns.map((column) => h('td', { className: cells[column][0], 'data-label': texts[column] }, cells[column][1](member))),
    forget ? h('td', { className: 'act' }, member.state === 'dead' || member.state === 'left'
      ? h('button', { type: 'button', className: 'quiet small', 'aria-label': texts.forgetLabel(host(member.address)), onclick: () => forget(member) }, texts.forget) : null) : null);
  const shown = members.slice(0, ROWS);
  return h('div', null,
    h('table', { className: 'members' },
      h('caption', { className: 'unseen' }, texts.table),
      h('thead', null, h('tr', null,
        h('th', { scope: 'col' }, texts.state), h('th', { scope: 'col' }, texts.node),
        columns.map((column) => h('th', { scope: 'col', className: cells[column][0] }, texts[column])),
        forget ? h('td', null) : null)),
      h('tbody', null, shown.map(row))),
    members.length > ROWS ? h('p', { className: 'soft' }, texts.more(members.length - ROWS)) : null);
}

/** Figures in a row. */
export const figures = (entries) => h('dl', { className: 'figures' },
  entries.map(([name, value, note]) => h('div', null, h('dt', null, name), h('dd', null, value, note ? h('small', null, ` ${note}`) : null))));

const RANK = { alive: 0, suspect: 1, dead: 2, left: 3, forgotten: 4 };

/** The node itself first, then the living, then the others; each by address. */
export const inOrder = (members) => [...members].sort((a, b) =>
  Number(b.self ?? false) - Number(a.self ?? false) || RANK[a.state] - RANK[b.state] || a.address.localeCompare(b.address, 'en', { numeric: true }));
