// Asks the control port: JSON, and server-sent events over fetch, because an EventSource sends no key.

const KEY = "wattgate-admin-key";

export class Refused extends Error {}

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, authorization: `Bearer ${key}` } : more;
}

async function problemOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The control port answered ${answer.status}.`;
  }
}

async function checked(path, options) {
  const answer = await fetch(path, options);
  if (answer.status === 401) throw new Refused(await problemOf(answer));
  if (!answer.ok) throw new Error(await problemOf(answer));
  return answer;
}

export async function getJson(path) {
  return (await checked(path, { headers: headers() })).json();
}

/** Calls `heard(event, data)` for each event of an answer, until it ends. */
export async function events(path, heard, { body = null, signal = null } = {}) {
  const posted = body && {
    method: "POST", body: JSON.stringify(body), headers: headers({ "content-type": "application/json" }),
  };
  const answer = await checked(path, { ...(posted ?? { headers: headers() }), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const name = lines.find((line) => line.startsWith("event:"))?.slice(6).trim() ?? "message";
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data) heard(name, data);
    }
  }
}
