// All blobs: where to drop, what is under way, and the list, in the orders that the node has an index of.

import { read } from './api.js';
import { h, show } from './dom.js';
import { called, isId, size } from './format.js';
import { calmly, follow } from './live.js';
import { when } from './members.js';
import { notice, problem } from './notices.js';
import { blobs as texts, general } from './texts.js';
import { askAgain, onUploaded, section, take } from './uploads.js';

const PAGE = 50;

export function blobsView(place) {
  const body = h('div', null);
  const below = h('div', { className: 'row', role: 'status' });
  const fresh = h('button', { type: 'button', className: 'quiet small', hidden: true });
  const search = h('input', { type: 'search', placeholder: texts.searchHint, autocomplete: 'off', spellcheck: false, maxLength: 255 });
  const order = h('select', null, [['newest', texts.newest], ['name', texts.byName], ['id', texts.byId]].map(([value, name]) => h('option', { value }, name)));
  place.append(
    h('h1', { tabIndex: -1, className: 'unseen' }, texts.title), dropZone(), section,
    h('section', { className: 'card' },
      h('div', { className: 'row between' }, h('h2', null, texts.list), fresh),
      h('form', { className: 'row', role: 'search', onsubmit: (event) => { event.preventDefault(); load(); } },
        h('label', { className: 'grow' }, texts.search, search), h('label', null, texts.sort, order)),
      body, below));

  let shown = [];
  let next = null;
  let changes = 0;
  let asked = 0;

  async function page(after) {
    const text = search.value.trim();
    if (isId(text.toLowerCase())) return one(text.toLowerCase());
    const query = new URLSearchParams({ limit: String(PAGE) });
    if (text) query.set('name', text);
    query.set('order', text ? 'name' : order.value);
    if (after) query.set('after', after);
    return read(`/blobs?${query}`);
  }

  async function load(after) {
    const mine = ++asked;
    try {
      const answer = await page(after);
      // A later question has been asked meanwhile: its answer counts.
      if (mine !== asked) return;
      shown = after ? shown.concat(answer.blobs) : answer.blobs;
      next = answer.next;
      changes = 0;
      draw();
    } catch (error) {
      if (mine === asked) { show(body, problem(error, () => load())); show(below); }
    }
  }

  function draw() {
    fresh.hidden = changes === 0;
    if (changes) show(fresh, texts.fresh(changes));
    order.disabled = search.value.trim() !== '';
    if (shown.length === 0) {
      show(body, search.value.trim() ? notice(texts.notFound(search.value.trim()), texts.notFoundHint) : notice(texts.none, texts.noneHint));
      show(below);
      return;
    }
    show(body, table(shown));
    show(below, h('span', { className: 'soft' }, texts.shown(shown.length, next !== null)),
      next ? h('button', { type: 'button', className: 'quiet', onclick: () => load(next) }, general.more) : null);
  }

  let typing = 0;
  search.addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(() => load(), 200); });
  order.addEventListener('change', () => load());
  fresh.addEventListener('click', () => load());
  onUploaded(() => load());
  // The first page follows what happens; who has read on is asked first, so that nothing moves under a finger.
  const soon = calmly(() => (shown.length <= PAGE ? load() : draw()));
  const stop = follow('/events', {
    record: ({ id }) => { changes += 1; askAgain(id); soon(); },
    holder: ({ id }) => askAgain(id),
  }, soon);
  show(body, h('div', { className: 'waiting', 'aria-hidden': 'true' }, [1, 2, 3].map(() => h('i'))));
  load();
  return () => { stop(); clearTimeout(typing); onUploaded(() => {}); };
}

async function one(id) {
  const { versions } = await read(`/blobs/${id}/versions`).catch((error) => {
    if (error.status === 404) return { versions: [] };
    throw error;
  });
  const live = versions.filter((version) => !version.deleted).slice(0, 1);
  return { blobs: live.map((version) => ({ ...version, id })), next: null };
}

function dropZone() {
  const input = h('input', { type: 'file', multiple: true, id: 'files', className: 'unseen' });
  input.addEventListener('change', () => { take([...input.files]); input.value = ''; });
  return h('section', { className: 'drop' },
    h('div', { className: 'arrow', 'aria-hidden': 'true' }),
    h('p', { className: 'big' }, texts.drop),
    h('p', { className: 'soft' }, `${texts.or} `, input, h('label', { className: 'button primary', htmlFor: 'files' }, texts.choose)),
    h('p', { className: 'soft small' }, texts.terminal, ' ', h('code', null, `curl -T FILE ${location.origin}/`)));
}

function table(blobs) {
  const row = (blob) => h('tr', null,
    h('th', { scope: 'row' }, h('a', { href: `#/blob/${blob.id}`, className: 'name' }, called(blob)), blob.conflict ? h('span', { className: 'chip warn' }, texts.conflict) : null),
    h('td', { className: 'number' }, size(blob.size)),
    h('td', { className: 'type' }, blob.media_type),
    h('td', { className: 'number' }, when(blob.created)),
    h('td', { className: 'act' }, h('a', { href: `/blobs/${blob.id}?download`, 'aria-label': `${texts.download} ${called(blob)}`, download: '' }, texts.download)));
  return h('table', { className: 'blobs' }, h('caption', { className: 'unseen' }, texts.list),
    h('thead', null, h('tr', null, h('th', { scope: 'col' }, texts.name), h('th', { scope: 'col', className: 'number' }, texts.bytes),
      h('th', { scope: 'col', className: 'type' }, texts.type), h('th', { scope: 'col', className: 'number' }, texts.when), h('td', null))),
    h('tbody', null, blobs.map(row)));
}
