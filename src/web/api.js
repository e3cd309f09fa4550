// The node, as the page asks it.

let token = sessionStorage.getItem('token') ?? '';
let askForToken = async () => null;

/** How the page asks for the node's write token when the node wants one. */
export const onToken = (ask) => { askForToken = ask; };

/** A request that was refused, with what the node said about it. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
    this.status = status;
    this.kind = problem.type ?? '';
  }
}

/** The node did not answer. */
export class Unreachable extends Error {}

function refusal(status, text) {
  try {
    return new Refused(status, JSON.parse(text));
  } catch {
    return new Refused(status, {});
  }
}

const headers = (more) => (token ? { ...more, authorization: `Bearer ${token}` } : { ...more });

async function newToken() {
  const given = await askForToken(token !== '');
  if (!given) return false;
  token = given;
  sessionStorage.setItem('token', token);
  return true;
}

/** Sends a request and gives the answer, whatever its headers; throws what stands above. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(options.headers), cache: 'no-store' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Unreachable(error.message);
  }
  if (answer.status === 401 && await newToken()) return ask(path, options);
  if (!answer.ok) throw refusal(answer.status, await answer.text());
  return answer;
}

export const read = async (path, options) => (await ask(path, options)).json();

/** Uploads a file as a new blob. `progress` hears how many bytes went; the result has `done`, a promise, and `cancel`. */
export function upload(file, progress) {
  const request = new XMLHttpRequest();
  let cancelled = false;
  const once = () => new Promise((resolve, reject) => {
    const name = file.name ? `?name=${encodeURIComponent(file.name)}` : '';
    request.open('POST', `/blobs${name}`);
    for (const [header, value] of Object.entries(headers({ accept: 'application/json' }))) request.setRequestHeader(header, value);
    // The browser adds the file's type, if it knows one.
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onerror = () => reject(new Unreachable('no answer'));
    request.onabort = () => reject(new DOMException('cancelled', 'AbortError'));
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText));
    };
    request.send(file);
  });
  const attempt = async () => {
    try {
      return await once();
    } catch (error) {
      if (error.status === 401 && !cancelled && await newToken()) return attempt();
      throw error;
    }
  };
  return { done: attempt(), cancel: () => { cancelled = true; request.abort(); } };
}
