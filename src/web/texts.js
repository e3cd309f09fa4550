// Every text of the page, in one place.

import { brief, count, size, span } from './format.js';

const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

export const state = { alive: 'alive', suspect: 'suspect', dead: 'dead', left: 'left', forgotten: 'forgotten' };

export const general = {
  retry: 'Try again',
  loading: 'Loading…', more: 'Show more',
  offline: 'This node does not answer. What you see may be old; the page comes back by itself when the node does.',
  offlineMap: 'The bootstrap node does not answer. The nodes go on without it; this page comes back by itself.',
  online: 'It answers again.',
  failed: (why) => `That did not work: ${why}`,
  unreachable: 'the node does not answer. Is it running?',
  copy: 'Copy', copied: 'Copied', copyFailed: 'The browser does not allow copying; select the text instead.',
  cancel: 'Cancel', close: 'Close',
  wrong: 'Something went wrong',
};

export const token = {
  title: 'This node asks for its write token',
  text: 'Whoever runs the node has it (the file named with --write-token). It is kept until you close this tab.',
  again: 'That was not the token of this node. ',
  label: 'Token', use: 'Use it',
};

export const blobs = {
  title: 'Blobs',
  drop: 'Drop files anywhere on this page',
  or: 'or paste one, or',
  choose: 'choose files',
  folder: 'A folder cannot be dropped here. From a terminal: gossip-cdn put FOLDER',
  release: 'Release to upload',
  lead: 'What you upload here can be downloaded from every node.',
  terminal: 'Or from a terminal:',
  uploads: 'Uploads',
  waiting: 'waiting for its turn',
  sending: (sent, all, speed, left) => `${size(sent)} of ${size(all)} · ${size(Math.round(speed))}/s${left ? ` · ${span(left)} left` : ''}`,
  starting: (all) => `0 of ${size(all)}`,
  finishing: 'writing to disk…',
  cancelled: 'cancelled; nothing was kept',
  failed: (why) => `not uploaded: ${why}`,
  cancelOne: (name) => `Cancel ${name}`, retryOne: (name) => `Try again: ${name}`, dismissOne: (name) => `Dismiss ${name}`,
  done: (name) => `${name} is uploaded`,
  progress: (name) => `Upload of ${name}`,
  dismiss: 'Dismiss',
  copyLink: 'Copy link', qr: 'QR code', open: 'Open', download: 'Download', details: 'Details',
  qrOf: (name) => `The link of ${name} as a QR code`,
  list: 'All blobs',
  name: 'Name', bytes: 'Size', type: 'Type', when: 'Written',
  search: 'Search', searchHint: 'Beginning of a name, or a whole id',
  sort: 'Sort by', newest: 'newest first', byName: 'name', byId: 'id',
  shown: (number, more) => `${plural(number, 'blob', 'blobs')} shown${more ? ', there are more' : ''}`,
  none: 'Nothing is stored yet.', noneHint: 'Drop a file anywhere on this page to be the first.',
  notFound: (text) => `No blob has a name that begins with “${text}”.`, notFoundHint: 'Capital letters count. A whole id works too.',
  fresh: (number) => `${plural(number, 'change', 'changes')}: show`,
  conflict: 'conflict',
};

export const spread = {
  on: (here, all) => `on ${here} of ${plural(all, 'node', 'nodes')}`,
  asking: 'asking the nodes…',
  unknown: 'cannot be told just now',
  holders: 'Who holds it',
  here: 'this node',
  has: 'has it',
  missing: 'not yet',
};

export const blob = {
  back: 'All blobs',
  deleted: 'This blob was deleted.', deletedHint: 'A delete reaches every node and holds for good.',
  unknown: 'This node knows no such blob.', unknownHint: 'It may not have heard of it yet: the page tells as soon as it does.',
  preview: 'Preview', noPreview: 'There is no preview of this type; download it to look at it.',
  tooLong: (bytes) => `The first ${size(bytes)}.`,
  size: 'Size', type: 'Type', written: 'Written', by: 'by node', id: 'Id', blake3: 'BLAKE3', sha256: 'SHA-256',
  version: 'Version', clock: 'Vector clock', why: 'Why this version',
  facts: 'Facts', commands: 'From a terminal',
  remove: 'Delete', removeTitle: (name) => `Delete ${name}?`, removeText: 'It is deleted on every node, for good. There is no way back.',
  removed: (name) => `${name} is deleted, here and soon everywhere`, keep: 'Keep it',
  conflict: (number) => `There are ${number} versions of this blob, written without knowing of each other.`,
  compare: 'Compare them',
};

export const conflicts = {
  title: 'Conflicts',
  lead: 'When two nodes write the same blob without knowing of each other, every node picks the same winner and keeps the other versions until somebody writes over them.',
  none: 'No conflicts.', noneHint: 'Nobody wrote the same blob twice without knowing of it.',
  winner: 'winner', sibling: 'sibling', tombstone: 'deleted',
  origin: 'Written by', when: 'Written', stamp: 'Stamp', clock: 'Vector clock', hash: 'BLAKE3',
  choose: 'Make this the winner', keep: 'Keep the winner', download: 'Download',
  chosen: 'Done: this version was written again over all others, and every node will see it win.',
  label: (what, origin) => `${what}: the version of node ${brief(origin)}`,
  reason: 'Why it won',
};

export const network = {
  title: 'Network',
  lead: 'Each second every node compares its records with one other, chosen at random. That is all it takes.',
  leadMap: 'The network as its bootstrap node sees it. Nodes report every few seconds whom they exchanged with.',
  drawing: (number) => `${plural(number, 'node', 'nodes')}, and who talks to whom right now. The table below says the same.`,
  legend: 'Legend', states: 'States',
  kinds: { exchange: 'compares records', records: 'sends what differs', rumor: 'spreads news', payload: 'fetches bytes', probe: 'asks for signs of life', members: 'tells of members', messages: 'passes messages' },
  pause: 'Pause drawing', resume: 'Resume drawing',
  table: 'Members',
  state: 'State', node: 'Node', incarnation: 'Incarnation', version: 'Version', bytes: 'Bytes', lag: 'Lag', heard: 'heard', exchange: 'Last exchange',
  self: 'this node', unsaid: '–', never: 'never heard', none: 'none lately',
  inStep: 'none', differs: 'other records', said: 'as it said',
  lacksRecords: (number) => plural(number, 'record', 'records'), lacksPayloads: (number) => plural(number, 'payload', 'payloads'), lacksMessages: (number) => plural(number, 'message', 'messages'),
  alone: 'This node knows no other.', aloneHint: 'Start a second one with --bootstrap and the address of a bootstrap node, or introduce one here.',
  empty: 'No node has joined yet.', emptyHint: (address) => `gossip-cdn node --bootstrap ${address}`,
  introduce: 'Introduce a node', address: 'Its address', add: 'Introduce', added: (address) => `${address} is a member now`, notYet: (address) => `${address} does not answer yet and is tried again`,
  forget: 'Forget', forgetTitle: (name) => `Forget ${name}?`, forgetText: 'It is tried no more, anywhere, until it comes back by itself.', forgotten: (name) => `${name} is forgotten`,
  forgetLabel: (name) => `Forget ${name}`,
  changed: (name, now) => `${name} is ${now}`,
  blobs: 'Blobs', here: 'Payloads here', wanted: 'On their way here', live: 'Alive', dead: 'Dead', left: 'Left', sets: 'Record sets', agree: 'all alive nodes agree', disagree: 'among the alive nodes',
  uptime: 'Up for', more: (number) => `And ${count(number)} more.`,
};

export const messages = {
  title: 'Messages',
  lead: 'What one node is told, every node delivers, once, and in an order that makes sense.',
  none: 'No message yet.', noneHint: 'Say something: every node will have it.',
  say: 'Message', post: 'Post', channel: 'Order',
  causal: 'causal: after what it answers', ordered: 'ordered: numbered alike everywhere',
  pending: 'pending', ordered1: (number) => `number ${count(number)}`, slot: (slot) => `slot ${count(slot)}`,
  accepted: 'Accepted: it is on this node’s disk, and pending until a majority has it.',
  arrived: 'Delivered.',
  waiting: 'Pending: a majority of the voters must have it first.',
  noHistory: 'This network has no message history yet. Messages are kept and wait; start one node with --found, once.',
  behind: 'This node is catching up with the others.',
  from: 'from node', earlier: 'Earlier messages', binary: (bytes) => `${size(bytes)} of data`,
  history: 'History', status: (voters, role) => `${plural(voters, 'voter', 'voters')}; this node is a ${role}`,
  empty: 'Write something first.',
};
