/** The tenants of the running platform, as the probe sees them. */
import { randomUUID } from 'node:crypto';
import { request } from 'node:https';
import { address, authorityPem, stackOutputs } from '../support/session-api.ts';
import { type ApiDocument, routesOfDocument } from './document.ts';
import type { ProbeRoute, Received, Sent, Tenant } from './probe.ts';

/** An HTTP API of the platform. */
export interface Api {
  readonly url: string;
  /** Certificate of the authority. */
  readonly ca: string;
}

/** An API by the name of its output and of the variable that overrides it. */
export const apiOf = async (variable: string, output: string): Promise<Api> => ({
  url: address(variable, output),
  ca: await authorityPem(),
});

/** An event stream goes on: what has come by then is the answer, milliseconds. */
const streamTime = 400;

/** Sends one request. */
export function send({ url, ca }: Api, token: string, sent: Sent): Promise<Received> {
  const text = sent.body === undefined ? undefined : JSON.stringify(sent.body);
  const headers = {
    authorization: `Bearer ${token}`,
    ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    ...sent.headers,
  };
  return new Promise((resolve, reject) => {
    const outgoing = request(
      `${url}${sent.path}`,
      { method: sent.method, ca, headers, timeout: 60_000 },
      (incoming) => {
        let body = '';
        const answer = () => resolve({ status: incoming.statusCode ?? 0, headers: flat(incoming.headers), body });
        if (incoming.headers['content-type']?.includes('event-stream')) {
          setTimeout(() => {
            answer();
            outgoing.destroy();
          }, streamTime);
        }
        incoming.setEncoding('utf8').on('data', (piece: string) => {
          body += piece;
        });
        incoming.on('end', answer).on('error', answer);
      },
    );
    outgoing.on('timeout', () => outgoing.destroy(new Error(`${sent.path}: nothing for 60 s`)));
    outgoing.on('error', reject).end(text);
  });
}

const flat = (headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));

/** Every output of the stack that is the address of an API of ours: each is probed, or the list is not whole. */
export const apisOfStack = (): readonly string[] =>
  Object.keys(stackOutputs())
    .filter((name) => name.endsWith('Url') && name !== 'issuerUrl')
    .toSorted();

/** Every route that a running API describes, with what it takes. */
export async function declaredRoutesOf(api: Api, token: string): Promise<ProbeRoute[]> {
  const { status, body } = await send(api, token, { method: 'GET', path: '/openapi.json', headers: {} });
  if (status !== 200) throw new Error(`${api.url}/openapi.json: status ${status} ${body}`);
  return routesOfDocument(JSON.parse(body) as ApiDocument);
}

/** Every route that a running API describes, by method and path alone: bodies are guessed. */
export const routesOf = async (api: Api, token: string): Promise<ProbeRoute[]> =>
  (await declaredRoutesOf(api, token)).map(({ method, path }) => ({ method, path }));

interface Opened {
  readonly id: string;
  readonly turn?: { readonly id: string };
}

/** A tenant with sessions that only it may see. */
export async function tenantWithSessions(api: Api, name: string, token: string): Promise<Tenant> {
  const persona = `persona-${randomUUID()}`;
  const prompt = `prompt-${randomUUID()}`;
  const key = `key-${randomUUID()}`;
  const mine = (sent: Sent) => send(api, token, sent);
  const open = async (body: object, headers = {}): Promise<Opened> => {
    const answer = await mine({ method: 'POST', path: '/v1/sessions', headers, body });
    if (answer.status !== 201) throw new Error(`${name} cannot open a session: ${answer.status} ${answer.body}`);
    return JSON.parse(answer.body) as Opened;
  };
  const body = { persona, prompt };
  const [first, second, spare] = [
    await open(body, { 'idempotency-key': key }),
    await open({ persona }),
    await open({}),
  ];
  const page = await mine({ method: 'GET', path: '/v1/sessions?limit=1', headers: {} });
  const cursor = String(JSON.parse(page.body).nextCursor);
  const sessions = [first.id, second.id];
  return {
    name,
    send: mine,
    identifiers: {
      id: sessions,
      session: sessions,
      turnId: first.turn === undefined ? [] : [first.turn.id],
      cursor: [cursor],
      tenant: [name],
    },
    spare: { id: spare.id },
    keys: [{ route: { method: 'POST', path: '/v1/sessions' }, key, body: { persona: 'another' } }],
    canaries: [persona, prompt],
    state: async () => {
      const seen = await Promise.all(
        sessions.map((id) => mine({ method: 'GET', path: `/v1/sessions/${id}`, headers: {} })),
      );
      return JSON.stringify(seen.map(({ status, body: text }) => [status, text]));
    },
  };
}

/** A tenant with the credential of its administrator, at the service of training: its sessions are what may be approved. */
export async function tenantWithTraining(api: Api, name: string, token: string, sessions: Tenant): Promise<Tenant> {
  const mine = (path: string) => send(api, token, { method: 'GET', path, headers: {} });
  const shown = await mine('/v1/training/runs');
  if (shown.status !== 200) throw new Error(`${name} cannot list its runs: ${shown.status} ${shown.body}`);
  const { runs } = JSON.parse(shown.body) as { runs: readonly { id: string }[] };
  const { id = [], tenant = [] } = sessions.identifiers;
  return {
    name,
    send: (sent) => send(api, token, sent),
    identifiers: { id: runs.slice(0, 2).map((run) => run.id), sessionIds: id, tenant },
    keys: [],
    canaries: [...id, ...sessions.canaries],
    state: async () => {
      const paths = ['/v1/training/approvals', '/v1/training/runs', '/v1/training/serving'];
      const answers = await Promise.all(paths.map(mine));
      return JSON.stringify(answers.map(({ status, body }) => [status, body]));
    },
  };
}

/** A tenant with the credential of its administrator, at analytics: figures move by themselves, so only answers count. */
export const tenantWithFigures = (api: Api, name: string, token: string, sessions: Tenant): Tenant => ({
  name,
  send: (sent) => send(api, token, sent),
  identifiers: { tenant: [name], ...(sessions.identifiers.id && { session: sessions.identifiers.id }) },
  keys: [],
  canaries: sessions.canaries,
  state: async () => '',
});

/** A tenant with the credential of its administrator, whose people and accounts only it may see. */
export async function tenantWithPeople(api: Api, name: string, token: string): Promise<Tenant> {
  const mine = (path: string) => send(api, token, { method: 'GET', path, headers: {} });
  const people = await mine(`/v1/tenants/${name}/users?limit=200`);
  const { users } = JSON.parse(people.body) as { users?: readonly { id: string; username: string }[] };
  if (users === undefined) throw new Error(`${name} cannot list its people: ${people.status} ${people.body}`);
  return {
    name,
    send: (sent) => send(api, token, sent),
    identifiers: {
      tenant: [name],
      id: users.slice(0, 2).map(({ id }) => id),
      username: users.slice(0, 2).map(({ username }) => username),
    },
    keys: [],
    canaries: users.map(({ id }) => id),
    state: async () => {
      const [tenant, all] = await Promise.all([
        mine(`/v1/tenants/${name}`),
        mine(`/v1/tenants/${name}/users?limit=200`),
      ]);
      return JSON.stringify([tenant.status, tenant.body, all.status, all.body]);
    },
  };
}
