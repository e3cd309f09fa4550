// One blob: what it is, what is in it, where it is.

import { ask, read } from './api.js';
import { confirmed, copyButton, h, show, toast } from './dom.js';
import { brief, called, date, host, size } from './format.js';
import { calmly, follow } from './live.js';
import { mark } from './marks.js';
import { notice, problem, why } from './notices.js';
import { preview } from './preview.js';
import { holders, spreadMeter } from './spread.js';
import { blob as texts, blobs, general, spread } from './texts.js';

export function blobView(place, id) {
  const body = h('div', null, h('p', { className: 'soft' }, general.loading));
  place.append(h('p', { className: 'back' }, h('a', { href: '#/' }, `← ${texts.back}`)), body);
  let version = null;
  let following = null;
  let deleting = false;

  async function load() {
    try {
      const found = await read(`/blobs/${id}/versions`);
      const winner = found.versions[0];
      const state = found.versions.map((each) => each.version).join();
      if (state === version) return;
      version = state;
      following?.stop();
      following = null;
      if (winner.deleted) { if (!deleting) show(body, h('h1', { tabIndex: -1 }, brief(id)), notice(texts.deleted, texts.deletedHint)); return; }
      draw({ ...winner, id }, found);
    } catch (error) {
      if (version !== null) return;
      show(body, error.status === 404 ? notice(texts.unknown, texts.unknownHint) : problem(error, load));
    }
  }

  function draw(blob, found) {
    const name = called(blob);
    const link = `${location.origin}/blobs/${id}`;
    const meter = spreadMeter();
    const where = h('ul', { className: 'holders' });
    const members = read('/members').then((answer) => answer.members, () => []);
    following = holders(id, async (answer) => { meter.heard(answer); if (answer) show(where, ...places(id, answer, await members)); });
    const remove = h('button', { type: 'button', className: 'danger' }, texts.remove);
    remove.addEventListener('click', async () => {
      if (!await confirmed(texts.removeTitle(name), texts.removeText, texts.remove, texts.keep)) return;
      deleting = true;
      try {
        await ask(`/blobs/${id}`, { method: 'DELETE', headers: { 'if-match': blob.etag } });
        toast(texts.removed(name));
        location.hash = '#/';
      } catch (error) { deleting = false; toast(general.failed(why(error))); }
    });
    const code = h('details', null, h('summary', null, blobs.qr));
    code.addEventListener('toggle', () => { if (code.open && !code.querySelector('img')) code.append(h('img', { className: 'qr', src: `/blobs/${id}/qr`, alt: blobs.qrOf(name), width: 256, height: 256 })); });
    show(body,
      h('div', { className: 'title' }, h('h1', { tabIndex: -1 }, name), meter.element),
      found.versions.length > 1 ? h('p', { className: 'warning' }, texts.conflict(found.versions.length), ' ', h('a', { href: `#/conflicts/${id}` }, texts.compare)) : null,
      h('div', { className: 'row' }, copyButton(link, blobs.copyLink, ''),
        h('a', { className: 'button', href: `/blobs/${id}`, target: '_blank', rel: 'noopener' }, blobs.open),
        h('a', { className: 'button', href: `/blobs/${id}?download`, download: '' }, blobs.download), remove),
      h('div', { className: 'columns' },
        h('section', { className: 'card' }, h('h2', null, texts.preview), preview(blob) ?? h('p', { className: 'soft' }, texts.noPreview)),
        h('section', { className: 'card' }, h('h2', null, spread.holders), where, code)),
      h('section', { className: 'card' }, h('h2', null, texts.facts), facts(blob, found.reason)),
      h('section', { className: 'card' }, h('h2', null, texts.commands), commands(link, blob)));
  }

  load();
  const soon = calmly(load);
  const stop = follow('/events', {
    record: (record) => { if (record.id === id) { soon(); following?.ask(); } },
    holder: (holder) => { if (holder.id === id) following?.ask(); },
    member: () => following?.ask(),
  }, soon);
  return () => { stop(); following?.stop(); };
}

function places(id, answer, members) {
  const holding = new Set(answer.holders.map((holder) => holder.id));
  const known = members.filter((member) => member.state === 'alive' || holding.has(member.id));
  return known.map((member) => h('li', { className: holding.has(member.id) ? 'has' : 'lacks' },
    mark(member.state),
    h('a', { href: `${member.address}/blobs/${id}`, rel: 'noreferrer' }, host(member.address)),
    h('span', { className: 'soft' }, [member.self ? spread.here : null, holding.has(member.id) ? spread.has : spread.missing].filter(Boolean).join(' · '))));
}

function facts(blob, reason) {
  const clock = Object.entries(blob.clock);
  const rows = [
    [texts.size, `${size(blob.size)}${blob.size >= 1024 ? ` (${blob.size.toLocaleString('en')} bytes)` : ''}`], [texts.type, blob.media_type],
    [texts.written, `${date(blob.created)}, ${texts.by} ${brief(blob.origin)}`], [texts.id, h('code', null, blob.id)],
    [texts.blake3, h('code', null, blob.blake3)], [texts.sha256, h('code', null, blob.sha256)],
    [texts.version, h('code', null, blob.version)],
    [texts.clock, h('ul', { className: 'clock' }, clock.map(([node, stamp]) => h('li', null, h('code', null, `${brief(node)} ${stamp}`))))],
    [texts.why, reason],
  ];
  return h('dl', { className: 'facts' }, rows.map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value))));
}

function commands(link, blob) {
  const lines = [`curl -OJ '${link}?download'`, `gossip-cdn get ${blob.id}`, `curl -T FILE ${link}`, `curl -X DELETE ${link}`];
  return h('ul', { className: 'commands' }, lines.map((line) => h('li', null, h('code', { tabIndex: 0 }, line), copyButton(line, general.copy, 'quiet small'))));
}
