// Conflicts: blobs with versions that do not know of each other, side by side.

import { ask, read } from './api.js';
import { arrange, h, keepFocus, show, toast } from './dom.js';
import { brief, called, date, size, tame } from './format.js';
import { calmly, follow, inTurn } from './live.js';
import { notice, problem, why } from './notices.js';
import { preview } from './preview.js';
import { conflicts as texts, general } from './texts.js';

/** Conflicts shown at first, and more at a press. */
const PAGE = 20;

export function conflictsView(place, wanted) {
  const body = h('div', { className: 'conflicts' }, h('p', { className: 'soft', role: 'status' }, general.loading));
  const none = h('div', { className: 'card' }, notice(texts.none, texts.noneHint));
  const more = h('button', { type: 'button', className: 'quiet', hidden: true, onclick: () => { most += PAGE; load(); } }, general.more);
  place.append(h('h1', { tabIndex: -1 }, texts.title), h('p', { className: 'lead' }, texts.lead), body, more);
  let most = PAGE;
  let drawn = new Map();
  let left = false;

  /** The ids of blobs with several live versions, and whether there are more of them. */
  async function find() {
    const limit = most;
    const page = await read(`/blobs?conflicts&limit=${limit}`);
    return { ids: page.blobs.map((blob) => blob.id), further: Boolean(page.next) && page.blobs.length >= limit };
  }

  // One at a time, and each is drawn: where hints come faster than answers, a rule that only the last question counts would draw nothing.
  const load = inTurn(async () => {
    try {
      const { ids, further } = wanted ? { ids: [wanted], further: false } : await find();
      const all = await Promise.all(ids.map((id) => read(`/blobs/${id}/versions`)));
      const open = all.filter((found) => found.versions.length > 1);
      if (left) return;
      more.hidden = !further;
      // What is the same stays, with what is pressed and played in it.
      drawn = new Map(open.map((found) => {
        const state = JSON.stringify(found);
        const before = drawn.get(found.id);
        return [found.id, before?.state === state ? before : { state, section: conflict(found, load) }];
      }));
      keepFocus(body, () => arrange(body, open.length ? [...drawn.values()].map((each) => each.section) : [none]));
    } catch (error) {
      if (left) return;
      drawn = new Map();
      show(body, problem(error, load));
    }
  });

  load();
  const soon = calmly(load, 1000);
  const stop = follow('/events', { record: soon }, soon);
  return () => { left = true; stop(); };
}

function conflict(found, done) {
  const name = called({ ...found.versions[0], id: found.id, file_name: found.versions.find((version) => version.file_name)?.file_name });
  return h('section', { className: 'card conflict', 'aria-label': name, 'data-id': found.id },
    h('h2', null, h('a', { href: `#/blob/${found.id}` }, name)),
    h('p', { className: 'soft' }, h('strong', null, `${texts.reason}: `), found.reason),
    h('ol', { className: 'versions' }, found.versions.map((version, place) => card(found, version, place === 0, done))));
}

function card(found, version, wins, done) {
  const source = `/blobs/${found.id}?version=${encodeURIComponent(version.version)}`;
  const what = wins ? texts.keep : texts.choose;
  const choose = h('button', { type: 'button', className: wins ? 'quiet' : '', 'aria-label': texts.label(what, version.origin) }, what);
  choose.addEventListener('click', async () => {
    choose.disabled = true;
    try {
      if (version.deleted) await ask(`/blobs/${found.id}`, { method: 'DELETE' });
      else await ask(`/blobs/${found.id}?from_version=${encodeURIComponent(version.version)}`, { method: 'PUT' });
      toast(texts.chosen);
      done();
    } catch (error) { choose.disabled = false; toast(general.failed(why(error))); }
  });
  const rows = [
    [texts.when, date(version.created)], [texts.origin, h('code', { title: version.origin }, brief(version.origin))], [texts.stamp, h('code', null, version.stamp)],
    version.blake3 ? [texts.hash, h('code', { className: 'hash' }, version.blake3)] : null,
    [texts.clock, h('ul', { className: 'clock' }, Object.entries(version.clock).map(([node, stamp]) => h('li', null, h('code', null, `${brief(node)} ${stamp}`))))],
  ];
  return h('li', { className: wins ? 'version wins' : 'version' },
    h('p', { className: 'head' }, h('span', { className: wins ? 'chip good' : 'chip' }, wins ? texts.winner : texts.sibling),
      h('strong', null, version.deleted ? texts.tombstone : `${tame(version.file_name ?? '')} ${size(version.size)}`)),
    version.deleted ? null : preview({ ...version, id: found.id }, true),
    h('dl', { className: 'facts' }, rows.filter(Boolean).map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value)))),
    h('div', { className: 'row' }, choose, version.deleted ? null : h('a', { className: 'button', href: `${source}&download`, download: '' }, texts.download)));
}
