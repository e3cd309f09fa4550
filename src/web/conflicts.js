// Conflicts: blobs with versions that do not know of each other, side by side.

import { ask, read } from './api.js';
import { h, show, toast } from './dom.js';
import { brief, called, date, size, tame } from './format.js';
import { calmly, follow } from './live.js';
import { notice, problem, why } from './notices.js';
import { conflicts as texts, general } from './texts.js';

/** Conflicts shown; a network with more has another problem. */
const MOST = 50;

export function conflictsView(place, wanted) {
  const said = h('p', { className: 'soft', role: 'status' });
  const body = h('div', { className: 'conflicts' });
  place.append(h('h1', { tabIndex: -1 }, texts.title), h('p', { className: 'lead' }, texts.lead), said, body);
  let stopped = false;
  let looking = false;

  /** The ids of blobs with several live versions, live ones and deleted ones. */
  async function find() {
    const found = [];
    for (const deleted of ['', '&deleted']) {
      let after = null;
      do {
        const page = await read(`/blobs?conflicts&limit=${MOST}${deleted}${after ? `&after=${after}` : ''}`);
        found.push(...page.blobs.map((blob) => blob.id));
        after = page.next;
        if (after) show(said, texts.looking);
      } while (after && found.length < MOST && !stopped);
    }
    return found;
  }

  async function load() {
    if (looking) return;
    looking = true;
    try {
      const ids = wanted ? [wanted] : await find();
      const all = await Promise.all(ids.map((id) => read(`/blobs/${id}/versions`)));
      if (stopped) return;
      show(said, '');
      const open = all.filter((found) => found.versions.length > 1);
      if (open.length === 0) show(body, h('div', { className: 'card' }, notice(texts.none, texts.noneHint)));
      else show(body, ...open.map((found) => conflict(found, load)));
    } catch (error) {
      if (!stopped) { show(said, ''); show(body, problem(error, load)); }
    } finally { looking = false; }
  }

  show(said, general.loading);
  load();
  const soon = calmly(load, 1000);
  const stop = follow('/events', { record: soon }, soon);
  return () => { stopped = true; stop(); };
}

function conflict(found, done) {
  const name = called({ ...found.versions[0], id: found.id, file_name: found.versions.find((version) => version.file_name)?.file_name });
  return h('section', { className: 'card conflict', 'aria-label': name },
    h('h2', null, h('a', { href: `#/blob/${found.id}` }, name)),
    h('p', { className: 'soft' }, h('strong', null, `${texts.reason}: `), found.reason),
    h('ol', { className: 'versions' }, found.versions.map((version, place) => card(found, version, place === 0, done))));
}

function card(found, version, wins, done) {
  const source = `/blobs/${found.id}?version=${encodeURIComponent(version.version)}`;
  const choose = h('button', { type: 'button', className: wins ? 'quiet' : '', 'aria-label': (wins ? texts.keepLabel : texts.chooseLabel)(version.origin) }, wins ? texts.keep : texts.choose);
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
    version.media_type?.startsWith('image/') && !version.media_type.includes('svg') ? h('img', { className: 'thumb', src: source, alt: '' }) : null,
    h('dl', { className: 'facts' }, rows.filter(Boolean).map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value)))),
    h('div', { className: 'row' }, choose, version.deleted ? null : h('a', { className: 'button', href: `${source}&download`, download: '' }, texts.download)));
}
